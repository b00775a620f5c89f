"""The digest says whether anything differs, and `difference` what, in one line."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfpipe.rundir.fingerprint import Fingerprint, is_sealed, sealed

LEAVES = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.5, 1.0, "", "a", "b"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=4,
)
TEXTS = st.dictionaries(st.sampled_from("pqr"), st.sampled_from(["1", "2", "3"]), max_size=3)
FINGERPRINTS = st.builds(
    Fingerprint,
    settings=st.dictionaries(st.sampled_from(["data.a", "data.b", "seed"]), VALUES, max_size=3),
    files=TEXTS,
    inputs=TEXTS,
    code=st.fixed_dictionaries({"tfpipe": st.sampled_from(["0.1", "0.2"]), "stage": st.integers(1, 2)}),
)
NAMES = Fingerprint({"data.label_names": {"0": "negative", "1": "positive"}}, {}, {}, {"tfpipe": "0.1", "stage": 1})


def recorded(fingerprint: Fingerprint) -> Fingerprint:
    """What a stage's record has of it, as it is read again."""
    return Fingerprint(**json.loads(json.dumps(dataclasses.asdict(fingerprint), indent=2)))


@settings(deadline=None, max_examples=500)
@given(FINGERPRINTS, FINGERPRINTS)
def test_what_differs_is_always_said(one, other):
    said = other.difference(recorded(one))
    assert (one.digest == other.digest) == (said == "an unreadable record")
    assert len(said.splitlines()) == 1


@settings(deadline=None, max_examples=200)
@given(FINGERPRINTS, st.randoms())
def test_a_digest_survives_a_record_and_the_order_in_which_settings_are_listed(one, random):
    assert recorded(one).digest == one.digest
    listed = list(one.settings.items())
    random.shuffle(listed)
    assert dataclasses.replace(one, settings=dict(listed)).digest == one.digest


@given(st.permutations(["a", "b", "c"]), st.permutations(["a", "b", "c"]))
def test_the_order_of_a_mapping_counts_at_every_depth(first, second):
    assume(first != second)
    for wrapped in (lambda value: value, lambda value: {"section": {"deep": value}}, lambda value: [value]):
        one, other = (
            Fingerprint({"data": wrapped(dict.fromkeys(order, 1))}, {}, {}, NAMES.code) for order in (first, second)
        )
        assert one.digest != other.digest and other.difference(recorded(one)) != "an unreadable record"


def test_another_order_is_said_in_words():
    turned = dataclasses.replace(NAMES, settings={"data.label_names": {"1": "positive", "0": "negative"}})
    assert turned.difference(recorded(NAMES)) == "data.label_names: another order: 0, 1 -> 1, 0"


def test_another_version_is_said_in_words():
    def said(record: Fingerprint, **code) -> str:
        return dataclasses.replace(NAMES, code=NAMES.code | code).difference(record)

    record = recorded(NAMES)
    assert said(record, stage=2) == "tfpipe changed how it works (1 -> 2)"
    assert said(record, tfpipe="0.2") == said(record, tfpipe="0.2", stage=2) == "tfpipe 0.1 -> 0.2"
    unknown = dataclasses.replace(record, code={})
    assert said(unknown) == "tfpipe: unknown version -> 0.1"


def test_files_count_by_content_and_order():
    def fingerprint(**files: str) -> Fingerprint:
        return dataclasses.replace(NAMES, files=files)

    record = recorded(fingerprint(a="1", b="2"))
    assert fingerprint(moved="1", too="2").digest == fingerprint(a="1", b="2").digest
    for other, said in (
        (fingerprint(a="2", b="1"), "content of a; content of b"),
        (fingerprint(a="1", b="3"), "content of b"),
        (fingerprint(a="1"), "fewer input files"),
        (fingerprint(a="1", b="2", c="2"), "more input files"),
        (fingerprint(c="2", d="1"), "content of the input files, in another order"),
    ):
        assert other.difference(record) == said


def test_a_setting_that_came_or_went_is_named():
    bare = dataclasses.replace(NAMES, settings={})
    assert bare.difference(recorded(dataclasses.replace(NAMES, settings={"seed": None}))) == "seed: null -> absent"
    assert NAMES.difference(recorded(bare)).startswith('data.label_names: absent -> {"0": "negative"')


@given(VALUES)
def test_a_seal_holds_for_what_was_sealed(value):
    record = json.loads(json.dumps(sealed({"value": value})))
    assert is_sealed(record) and not is_sealed(record | {"value": [value]})
