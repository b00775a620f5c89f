"""Parity: artifacts against their Keras model, and the gates."""

import numpy as np
import pytest

from tfpipe.config.export import Verify
from tfpipe.evaluate import parity
from tfpipe.evaluate.golden import HARD_TEXTS, hard_requests
from tfpipe.evaluate.loaded import Artifact, Loaded
from tfpipe.evaluate.parity import answer, compare, failed_gates
from tfpipe.formats.base import Answer, Requests
from tfpipe.metrics import differences
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

KINDS = ("keras", "saved_model", "saved_model_text", "onnx")
PERFECT = {"label_agreement": 1.0, "mean_abs_probability_diff": 0.0}


def logit_diff(value, largest=1.0):
    """Both measures of a difference, in a row with this largest logit."""
    return {"max_abs_logit_diff": value, "max_scaled_logit_diff": value / largest}


def entry(variant="dense", artifact="onnx", batch_size=32, **values):
    format = artifact.removesuffix("_text")
    return {
        "variant": variant,
        "artifact": artifact,
        "format": format,
        "rounded": variant == "int8",
        "batch_size": batch_size,
        **PERFECT,
        **(logit_diff(0.0) | values),
    }


@pytest.fixture
def config(tiny_run):
    """Gates: 1e-5 for a SavedModel, 1e-4 for ONNX, agreement 0.95, probability 0.01."""
    return tiny_run[0]


@pytest.mark.parametrize(
    ("comparison", "setting"),
    [
        (entry(artifact="saved_model", **logit_diff(2e-5)), "verify.max_logit_diff.saved_model is 1e-05"),
        (entry(artifact="saved_model_text", **logit_diff(2e-5)), "verify.max_logit_diff.saved_model is 1e-05"),
        (entry(variant="pruned", **logit_diff(2e-4)), "verify.max_logit_diff.onnx is 0.0001"),
        (
            entry(**logit_diff(2e-3, largest=10.0)),
            "by up to 0.002, 0.0002 of the row's largest, verify.max_logit_diff.onnx",
        ),
        (entry(**logit_diff(float("nan"))), "verify.max_logit_diff.onnx is 0.0001"),
        (entry(variant="int8", label_agreement=0.94), "verify.min_label_agreement_int8 is 95.00%"),
        (entry(variant="int8", mean_abs_probability_diff=0.011), "verify.max_probability_diff_int8 is 0.01"),
        (
            entry(variant="int8", mean_abs_probability_diff=float("nan")),
            "verify.max_probability_diff_int8 is 0.01",
        ),
        (
            entry(variant="int8", artifact="litert", label_agreement=0.84),
            "verify.min_label_agreement_int8 is 95.00%, for litert 3 times as far",
        ),
        (
            entry(variant="int8", artifact="litert", mean_abs_probability_diff=0.031),
            "verify.max_probability_diff_int8 is 0.01, for litert 3 times as far",
        ),
        (entry(artifact="openvino", rounded=True, label_agreement=0.94), "verify.min_label_agreement_int8 is 95.00%"),
        (entry(artifact="litert", **logit_diff(2e-4)), "verify.max_logit_diff.litert is 0.0001"),
    ],
)
def test_a_difference_outside_its_gate_fails_with_the_setting(config, comparison, setting):
    (failure,) = failed_gates([entry(), comparison], config.verify)
    where = f"{comparison['variant']} {comparison['artifact']} at batch size 32: "
    assert failure.startswith(where) and setting in failure


@pytest.mark.parametrize(
    "comparison",
    [
        entry(artifact="saved_model", **logit_diff(1e-5)),
        entry(**logit_diff(9e-5)),
        entry(**logit_diff(9e-4, largest=10.0)),
        entry(variant="int8", label_agreement=0.95, mean_abs_probability_diff=0.01, **logit_diff(0.5)),
        entry(variant="int8", artifact="litert", label_agreement=0.86, mean_abs_probability_diff=0.029),
        entry(artifact="openvino", rounded=True, label_agreement=0.96, **logit_diff(0.02)),
    ],
)
def test_a_difference_on_its_gate_passes(config, comparison):
    assert failed_gates([comparison], config.verify) == []


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_an_answer_that_is_no_number_fails(config, variant):
    nan = float("nan")
    bad = entry(variant=variant, **logit_diff(nan), label_agreement=1.0, mean_abs_probability_diff=0.0)
    (failure,) = failed_gates([bad], config.verify)
    assert "logits differ by" in failure and "nan" in failure


@pytest.mark.parametrize(
    ("artifact", "flags", "named"),
    [
        ("onnx", {"avx2"}, True),
        ("onnx", {"avx2", "avx_vnni"}, False),
        ("saved_model", {"avx2"}, False),
    ],
)
def test_a_failure_of_int8_names_what_an_older_processor_does(config, monkeypatch, artifact, flags, named):
    monkeypatch.setattr(parity, "cpu_flags", lambda: flags)
    (failure,) = failed_gates([entry(variant="int8", artifact=artifact, label_agreement=0.9)], config.verify)
    assert ("clips sums of two 8-bit products" in failure and "quantize.reduce_range" in failure) == named


def large_logits(scale):
    """Logits of a float32 product, and the same product summed in another order."""
    random = np.random.default_rng(0)
    states, kernel = random.normal(size=(200, 768)).astype(np.float32), random.normal(size=(768, 3)).astype(np.float32)
    kernel *= np.float32(scale / np.abs(states @ kernel).max())
    return states @ kernel, states[:, ::-1].copy() @ kernel[::-1].copy()


def gate(logits, reference):
    found = entry(artifact="saved_model", **differences(logits, reference, "single_label"))
    return failed_gates([found], Verify())


def test_rounding_of_large_logits_passes_and_a_wrong_small_one_fails():
    reference, other = large_logits(scale=1000.0)
    assert np.abs(reference - other).max() > 1e-5  # more than the limit of a SavedModel
    assert gate(other, reference) == []
    small, other = large_logits(scale=1.0)
    assert gate(other, small) == []
    wrong = small.copy()
    wrong[7, 1] += 3e-5
    assert len(gate(wrong, small)) == 1
    wrong = reference.copy()
    wrong[7, 1] += np.abs(reference[7]).max() * np.float32(3e-5)
    assert len(gate(wrong, reference)) == 1


def test_every_failure_is_listed(config):
    bad = [entry(**logit_diff(1.0)), entry(variant="int8", label_agreement=0.0, mean_abs_probability_diff=1.0)]
    assert len(failed_gates(bad, config.verify)) == 3


def loaded(kind, ask, tokenize=None):
    """An artifact that is asked by a function."""
    format = kind.removesuffix("_text")
    facts = Artifact("dense", format, kind, None, 0, 0.0, 0, 64)
    return Loaded(facts, Answer(kind, kind != format, ask, tokenize=tokenize))


def constant(kind, logits, rows_seen):
    """An artifact that gives every row the same logits."""

    def ask(batch):
        rows_seen.append(len(batch.texts))
        return np.tile(np.float32(logits), (len(batch.texts), 1))

    return loaded(kind, ask)


@pytest.fixture(scope="module")
def table(tiny_run):
    return TokenTable.open(tiny_run[1] / "prepare" / "test")


@pytest.fixture(scope="module")
def hard(tiny_run):
    return hard_requests(Tokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32), pairs=False)


@pytest.fixture
def asked(config, table, hard):
    """Artifacts, each a file of its own -> their answers."""
    return lambda *artifacts: [each for one in artifacts for each in answer([one], table, hard, config)]


LOGITS = {"keras": (0, 1), "saved_model": (0, 1), "saved_model_text": (0, 1.5), "onnx": (3, 1)}


def test_hard_texts_are_measured_apart(config, table, asked):
    found = compare(asked(*(constant(kind, LOGITS[kind], []) for kind in KINDS)), table, config)
    assert {each["hard_texts"] for each in found} == {len(HARD_TEXTS)}
    assert [each["hard_texts_max_abs_logit_diff"] for each in found[:4]] == [0.0, 0.0, 0.5, 3.0]


def test_hard_texts_count_in_the_largest_difference_and_in_no_share(config, table, asked):
    """An artifact that answers real rows as it should and hard texts otherwise."""

    def ask(batch):
        strange = [isinstance(text, bytes) for text in batch.texts]
        return np.where(np.array(strange)[:, None], [[1.0, 0.0]], [[0.0, 1.0]]).astype(np.float32)

    others = [constant(kind, (0, 1), []) for kind in KINDS if kind != "onnx"]
    answered = asked(*others, loaded("onnx", ask))
    found = [each for each in compare(answered, table, config) if each["artifact"] == "onnx"]
    assert [each["max_abs_logit_diff"] for each in found] == [1.0, 1.0]
    assert [each["label_agreement"] for each in found] == [1.0, 1.0]
    assert failed_gates(found, config.verify) != []


def test_the_answers_in_batches_are_to_every_row(table, asked):
    for each in asked(*(constant(kind, LOGITS[kind], []) for kind in KINDS)):
        assert each.batched.rows.shape == (table.num_rows, 2)
        assert (each.batched.rows == np.float32(LOGITS[each.artifact.kind])).all()


def test_compare_measures_each_artifact_against_keras_at_both_sizes(config, table, asked):
    seen = {kind: [] for kind in KINDS}
    found = compare(asked(*(constant(kind, LOGITS[kind], seen[kind]) for kind in KINDS)), table, config)
    assert [(each["artifact"], each["batch_size"]) for each in found] == [(k, size) for size in (32, 1) for k in KINDS]
    share = float(table.labels[:, 1].mean())
    for each in found[:4]:
        assert each["rows"] == table.num_rows
        assert each["accuracy"] == pytest.approx(1 - share if each["artifact"] == "onnx" else share)
    assert {each["rows"] for each in found[4:]} == {config.verify.small_batch_rows}
    assert max(seen["onnx"]) == 32 and seen["onnx"].count(1) >= config.verify.small_batch_rows
    assert [each["max_abs_logit_diff"] for each in found[:4]] == [0.0, 0.0, 0.5, 3.0]
    assert [each["max_scaled_logit_diff"] for each in found[:4]] == [0.0, 0.0, 0.5, 3.0]  # no logit is above 1
    assert [each["label_agreement"] for each in found[:4]] == [1.0, 1.0, 1.0, 0.0]
    sigmoid = 1 / (1 + np.exp(-np.array([1.0, 1.5, -2.0])))
    expected = [0.0, 0.0, sigmoid[1] - sigmoid[0], sigmoid[0] - sigmoid[2]]
    assert [each["mean_abs_probability_diff"] for each in found[:4]] == pytest.approx(expected)
    assert [each["in_batches"]["label_agreement"] for each in found[4:]] == [1.0, 1.0, 1.0, 0.0]


def by_text(texts, tokenize):
    """The ways of an artifact that answers the sum of a row's token ids; by text, of what its tokenizer makes."""

    def by_tokens(batch):
        return np.stack([batch.tokens["input_ids"].sum(axis=1), np.zeros(len(batch))], axis=1).astype(np.float32)

    def ask(batch):
        texts.extend(batch.texts)
        return by_tokens(Requests(tokenize(batch), batch.texts, None))

    return [loaded("saved_model", by_tokens), loaded("saved_model_text", ask, tokenize)]


def test_texts_whose_token_ids_were_answered_are_not_answered_again(config, table, hard):
    texts = []
    ids, text = answer(by_text(texts, lambda batch: batch.tokens), table, hard, config)
    real = [each for each in texts if isinstance(each, str)]
    assert len(real) == config.verify.small_batch_rows and len(texts) - len(real) == 2 * len(HARD_TEXTS)
    assert (text.batched.rows == ids.batched.rows).all() and ids.batched.rows.std() > 0
    assert (ids.by_token_ids, text.by_token_ids) == (0, table.num_rows)


def test_texts_that_give_other_token_ids_are_asked(config, table, hard):
    """A tokenizer that drops one word in one row: only that row's batch is asked, and the difference is seen."""
    odd = table.texts(np.arange(table.num_rows))[7]

    def tokenize(batch):
        found = {name: value.copy() for name, value in batch.tokens.items()}
        if odd in batch.texts:
            found["input_ids"][batch.texts.index(odd), 1] = 0
        return found

    texts = []
    ids, text = answer(by_text(texts, tokenize), table, hard, config)
    assert odd in texts and text.by_token_ids == table.num_rows - config.verify.batch_size
    assert np.flatnonzero((text.batched.rows != ids.batched.rows).any(axis=1)).tolist() == [7]
    found = compare([ids._replace(artifact=loaded("keras", None).artifact), text], table, config)
    assert found[1]["max_abs_logit_diff"] > 0 and found[1]["by_token_ids"] == text.by_token_ids


@pytest.mark.parametrize(
    ("alone", "in_batches", "fails"),
    [
        ((0.94, 0.001), (1.0, 0.001), True),  # other answers alone
        ((0.94, 0.001), (0.94, 0.001), False),  # rows that round otherwise, of which all rows have few
        ((0.93, 0.001), (0.94, 0.001), True),
        ((0.96, 0.02), (0.96, 0.001), True),
        ((0.96, 0.0201), (0.96, 0.02), False),
        ((0.96, 0.03), (0.96, 0.02), True),
    ],
)
def test_few_rows_alone_are_held_to_what_they_were_in_batches(config, alone, in_batches, fails):
    names = ("label_agreement", "mean_abs_probability_diff")
    found = entry(variant="int8", batch_size=1, **dict(zip(names, alone, strict=True)))
    found["in_batches"] = dict(zip(names, in_batches, strict=True))
    assert bool(failed_gates([found], config.verify)) == fails
