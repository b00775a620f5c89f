"""Configurations, overrides, TF_CONFIG: nothing but a right configuration, or a line that names the file or setting."""

from __future__ import annotations

import contextlib
import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml
from fuzz.harness import CASES, VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st
from pydantic import ValidationError

import tfpipe
from tfpipe.config.file import dump_config, load_config, parse_config
from tfpipe.config.run import Config
from tfpipe.devices.cluster import Cluster

LEAST = {"name": "x", "data": {"source": "rows.csv"}, "encoder": {"source": "encoder"}}
SMALL = b"""name: x
data: {source: [a.csv, b.csv], filter: {year: [2001, "2002"]}, label_names: {"0": bad, 1: good}}
encoder: {source: package:a/b}
train: {epochs: 2, batch_size: 32, learning_rate: 5.0e-5, early_stopping: {patience: 3}, class_weights: {a: 1.5}}
prune: null
verify: {max_logit_diff: {onnx: 1.e-3}, rows: 100}
"""
ANCHORS = b"""name: x
data: {source: rows.csv, split: {train: 0.8, validation: 0.1, test: 0.1}}
encoder: {source: e}
train:
  early_stopping: &patient {patience: 4}
  reduce_on_plateau: {<<: *patient, factor: 0.5}
quantize: &q {mode: ptq, calibration_rows: 64}
"""
LAUGHS = "\n".join(
    ["name: x", "a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
).encode()
MERGES = "\n".join(
    ["name: x", "a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
).encode()
TOKENS = (
    b"!!python/object/apply:os.system ['touch PWNED']", b"!!python/name:os.system ", b"!!binary ", b"!!set ",
    b"!!omap ",
    b"!!timestamp ", b"!!int ", b"!!float ", b"!!bool ", b"!!str ", b"!!null ", b"!x ", b"&a ", b"*a", b"*patient",
    b"*q",
    b"<<: *q\n", b"? ", b"- ", b": ", b"\n  ", b"\n", b"---\n", b"...\n", b"%YAML 1.1\n", b"2024-01-01",
    b"2024-13-45", b"yes", b"off",
    b"0x" + b"f" * 5000, b"190:20:30", b"0o17", b"017", b".inf", b".nan", b"~", b"=", b"| ", b"> ", b"# ", b"@", b"`",
    b"name: y\n",
    b"train: {epochs: 1}\n", b"\xed\xa0\x80", b'"\\ud800"', b'"\\x00"',
)  # fmt: skip
# What this program refuses and YAML with pydantic alone would take.
STRICTER = ("stands twice", "in YAML", "not true or false", "tag", "aliases", "more than", "nested")


def same(config: Config, tree) -> bool:
    return config == Config.model_validate(tree)


def check_loaded(path: Path, overrides=()) -> bool:
    config, refused = attempt(lambda: load_config(path, list(overrides)), path.name)
    if refused is None:
        assert same(config, yaml.safe_load(path.read_text(encoding="utf-8")))
        assert parse_config(yaml.safe_load(dump_config(config)), where="dumped") == config
        config.model_dump_json()  # no text of it is such that no file could hold it
    return refused is not None


def test_configuration_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    files = [SMALL, ANCHORS, *(file.read_bytes() for file in Path(tfpipe.__file__).parents[1].glob("configs/q*.yaml"))]

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        refused = check_loaded(path)
        assert not (tmp_path / "PWNED").exists()
        return refused

    assert not any(map(check, files))
    always = (
        LAUGHS, MERGES, b"name: &a [*a]\n", b"a: &a {<<: *a}", b"name: " + b"[" * 10_000, b"- " * 10_000, b"? " * 5000,
        SMALL.replace(b"name: x", b"name: 0x" + b"f" * 5000), SMALL + b"seed: 0x" + b"f" * 5000,
        SMALL + b"x: 0x" + b"f" * 5000,
        LAUGHS.replace(b"name: x", b"data: {source: *a11}").replace(b"data: {source: *a11}\n",
        b"") + b"\nname: *a11\n" + SMALL[8:],
        "name: x".encode("utf-16"), b"", b"\0" * 100, b"a: " + b"x" * (2 << 20), b"a: [" + b"x, " * 60_000 + b"]",
        b"%TAG ! !!python/\n--- !name:os.system {}", SMALL.replace(b"good", b'"\\ud800"'),
    )  # fmt: skip
    fuzz("configuration, bytes", mutated(files, TOKENS, most=2), check, always)


def valid_trees() -> list[dict]:
    full = json.loads(json.dumps(parse_config(LEAST, where="x").model_dump(mode="json")))
    student = {"student": {"layers": [0, 1]}, "hidden_weight": 1.0, "layer_map": {0: 1}}
    return [
        full,
        LEAST | {"distill": student, "train": {"class_weights": {"a": 2}, "early_stopping": {}, "row_length": 64}},
        LEAST | {"data": {"source": {"train": "a", "test": ["b", "c"]}, "filter": {"x": [1, "y"]}, "workers": 2}},
        LEAST | {"data": {"source": "a", "augmentation": {"swap": 0.1}, "duplicates": {"near": True}}},
    ]


HOSTILE = (*VALUES, b"x", {1, 2}, -(10**400), "1e5", "nan", "1" * 5000, {True: 1}, {1: {2: {3: 4}}}, [[[[]]]], "on")


def test_configuration_values():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    wide = [["x"] * 10] * 10
    for _ in range(8):
        wide = [wide] * 10

    def check(tree) -> bool:
        config, refused = attempt(lambda: parse_config(tree, where="run.yaml"), "run.yaml")
        if refused is None:
            assert same(config, tree)
            for value, path in leaves(config.model_dump()):
                assert not isinstance(value, float) or math.isfinite(value), path
            for taken, path in leaves(tree):
                assert not (isinstance(taken, bool) and type(at(config.model_dump(), path)) in (int, float)), path
        else:
            with_pydantic = None
            with contextlib.suppress(ValidationError):
                with_pydantic = Config.model_validate(tree)
            assert with_pydantic is None or any(word in refused for word in STRICTER), refused
        return refused is not None

    always = [LEAST | {"name": value} for value in (deep, wide, "\ud800", b"\xff", float("nan"))]
    always += [LEAST | {"data": {"source": value}} for value in (deep, wide, [wide], [deep])]
    always += [LEAST | {"train": {"batch_size": True}}, LEAST | {"distill": {"student": {"layers": [True, 2]}}}]
    fuzz("configuration, values", mutated_tree(valid_trees(), HOSTILE), check, always)


def leaves(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        yield tree, path
    else:
        for key, value in items:
            yield from leaves(value, (*path, key))


def at(tree, path):
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def test_overrides(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: x\ndata: {source: rows.csv}\nencoder: {source: e}\n")
    keys = [
        "train.epochs", "train.batch_size", "data.source", "data.filter.x", "data.split.train", "verify.max_logit_diff",
        "prune", "name",
        "quantize.mode", "distill.layer_map.0", "data.label_names.1", "seed", "train", "", ".", "a..b", "train.",
        "x" * 3000, "a." * 3000,
    ]  # fmt: skip
    values = [
        "1", "0.5", "null", "true", "[1, 2]", "{}", "{a: 1}", "x", "", "[", "2024-13-45", "010", "1:30", "1_000",
        "0x" + "f" * 5000,
        "9" * 5000, "[" * 5000, "&a [*a]", "!!python/name:os.system", "!!set {a, b}", "{a: 1, a: 2}", "1e999", ".nan",
        "\ud800", '"\\ud800"', "x" * 5000,
        "&a [" + "x," * 50 + "]", "'\\0'", '"\\0"', "yes", "\0",
    ]  # fmt: skip
    part = st.sampled_from(values) | st.text(max_size=6) | st.text("[]{}&*!|>'\"%@`,?:- \n\t0159.exn_#", max_size=12)
    override = st.builds(
        lambda key, more, equals, value: f"{key}{more}{equals}{value}",
        st.sampled_from(keys) | st.text(".abc=", max_size=8),
        st.sampled_from(["", "", "", "", ".a", ".", " ", "=", "\ud800"]),
        st.sampled_from(["=", "=", "=", "", "=="]),
        st.sampled_from(values[:9]) | st.lists(part, min_size=1, max_size=2).map("".join),
    )
    override |= st.sampled_from(
        ["train.epochs=2", "prune=null", "prune.sparsity=.3", "data.filter={x: [1, a]}", "data.filter.y=b",
         "verify.max_logit_diff={onnx: 1}", "quantize.mode=ptq", "distill.hidden_weight=1", "data.label_names.1=one",
         "name='7'", "data.split={train: 0.6, validation: 0.2, test: 0.2}", "train={}", "data.source=[a, b]"]
    )  # fmt: skip

    def check(overrides: list[str]) -> bool:
        config, refused = attempt(lambda: load_config(path, overrides), "--set", "run.yaml")
        if refused is None:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
            for each in overrides:
                dotted, _, raw = each.partition("=")
                *parents, last = dotted.split(".")
                node = tree
                for key in parents:
                    node[key] = node.get(key) or {}
                    node = node[key]
                # One sign stands for itself, such as a separator.
                node[last] = raw if raw in set(string.punctuation) - {"~"} else yaml.safe_load(raw)
            assert same(config, tree)
            config.model_dump_json()
        return refused is not None

    always = [["data.filter.\ud800=x"], ['name="\\ud800"'], ["data.source=\ud800"]]
    fuzz("--set", st.lists(override, min_size=1, max_size=2), check, always)


def test_tf_config():
    valid = {
        "cluster": {"chief": ["a:1"], "worker": ["10.0.0.1:2222", "[::1]:22"]},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }

    def check(text: str) -> bool:
        with mock.patch.dict(os.environ):
            os.environ["TF_CONFIG"] = text
            cluster, refused = attempt(Cluster.from_environment, "TF_CONFIG")
        if refused is None and cluster is not None:
            given = json.loads(text)
            addresses = [*given["cluster"].get("chief", []), *given["cluster"].get("worker", [])]
            assert list(cluster.addresses) == addresses
            own = given["cluster"][given["task"]["type"]][int(given["task"].get("index", 0))]
            assert addresses[cluster.index] == own
        return refused is not None

    values = (*VALUES, "9" * 5000, "a:" + "9" * 5000, "a:0", "a:b", ":1", "a:٣", "²", ["a:1", "a:1"], "chief", "ps")
    trees = mutated_tree([valid, {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}], values)
    texts = mutated([json.dumps(valid).encode()]).map(
        lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    )
    fuzz("TF_CONFIG", trees.map(json_text) | texts, check, ["[" * 100_000])


def test_there_are_enough_cases():
    assert sum(CASES.values()) >= 10_000


@pytest.mark.parametrize(
    ("content", "arguments", "place"),
    [
        (LAUGHS, [], "run.yaml"),
        (MERGES, [], "run.yaml"),
        (b"name: \xff", [], "run.yaml"),
        (SMALL + b'? "a\\x1b[2J\\u2028\\ud800b"\n: 1\n', [], "run.yaml"),
        (SMALL, ["--set", os.fsdecode(b"name=\xff\x1b[A\nx")], "--set name="),
        (SMALL, ["--set", "train.epochs=" + "9" * 100_000], "--set train.epochs="),
        (SMALL, ["--set", "a." * 20_000 + "b=1"], "run.yaml"),
    ],
    ids="laughs merges encoding key bytes digits dots".split(),
)
def test_the_command_line_ends_with_one_printable_line(tmp_path, content, arguments, place):
    (tmp_path / "run.yaml").write_bytes(content)
    command = [sys.executable, "-m", "tfpipe.cli", "config", "show", tmp_path / "run.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60)
    line = done.stderr.decode().removesuffix("\n")
    assert done.returncode == 2 and not done.stdout
    assert line.startswith("tfpipe: ") and line.isprintable() and place in line and len(line) < 2500
