"""YAML that PyYAML takes and nobody meant, or that grows without end, is refused at its place."""

import time

import pytest
import yaml

from tfpipe.config import strict_yaml

LAUGHS = "\n".join(["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 200,000 values, with aliases written out"),
        (MERGES, "more than 200,000 values, with aliases written out"),
        ("a: &a [*a]", "an alias of what it stands in"),
        ("a: &a {<<: *a}", "an alias of what it stands in"),
        ("[" * 10_000, "nested too deeply"),
        ("a: " + "x" * (1 << 20), "more than 1 MB of text"),
        ("a: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("a: " + "9" * 5000, "a number of 5000 characters"),
        ("a: 1\nb: 2\na: 3", "the key a stands twice"),
        ("a: {b: 1, 'b': 2}", "the key b stands twice"),
        ("a: 010", "010 counts in octal in YAML 1.1"),
        ("{a: 1:30}", "1:30 counts by sixties in YAML 1.1"),
        ("a: 1:30.5", "1:30.5 counts by sixties in YAML 1.1"),
        ("a: 1_0.5", "1_0.5 is read without _ in YAML 1.1; put it in quotes, or write the number in decimal"),
        ("a: -1_000", "-1_000 is read without _ in YAML 1.1"),
        ("a: 0_7", "0_7 is read without _ in YAML 1.1"),
        ("a: 0x_f", "0x_f is read without _ in YAML 1.1"),
        ("a: 0b101", "0b101 counts in binary in YAML 1.1"),
        ("[-0b1]", "-0b1 counts in binary in YAML 1.1"),
        ("a: !!set {x, y}", "the tag tag:yaml.org,2002:set has no meaning here"),
        ("a: !!binary eA==", "the tag tag:yaml.org,2002:binary has no meaning here"),
        ("a: !!python/object/apply:os.system [true]", "has no meaning here"),
        ("a: !!bool x", "KeyError"),
        ("? [a]\n: 1", "found unhashable key"),
    ],
)
def test_what_is_refused_is_refused_at_once(text, said):
    started = time.monotonic()
    with pytest.raises((yaml.YAMLError, ValueError), match=said):
        strict_yaml.read(text)
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "[1, 0x10, 1.5e+3, 0, -1, 0.5, '010', '1:30', 08, '1_0', a_1, '0b1', _1]",
        "a: &a {b: [1, *x]}".replace("*x", "2"),
        "x: 2024-01-01",
        "~: null",
    ],
)
def test_what_has_one_meaning_is_read_as_pyyaml_reads_it(text):
    assert strict_yaml.read(text) == yaml.safe_load(text)


def test_aliases_and_merges_give_values_of_their_own():
    tree = strict_yaml.read("a: &a {x: [1], y: 2}\nb: *a\nc: {<<: *a, y: 3}")
    assert tree == {"a": {"x": [1], "y": 2}, "b": {"x": [1], "y": 2}, "c": {"x": [1], "y": 3}}
    tree["a"]["x"].append(2)
    assert tree["b"]["x"] == tree["c"]["x"] == [1]
