"""safetensors files: every tensor as its header says, or a line that names the file; never more memory than it has."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import tensorflow as tf
from conftest import TINY, tiny_vocabulary, tiny_weights, write_encoder
from fuzz.harness import VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.transformers import standard_name
from tfpipe.files import sha256_of_file
from tfpipe.model.classifier import Classifier, load_classifier, save_classifier
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train import checkpoints as checkpoints_module
from tfpipe.train.checkpoints import Checkpoints, Progress

SMALL = TINY | {"vocab_size": len(tiny_vocabulary()), "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X")
NUMBERS = (0, 1, 3, -1, 2**31, 2**40, 2**63, 2**64 - 1, 10**30)


@st.composite
def safetensors_files(draw, contents: list[bytes]) -> bytes:
    """A valid file with its length, its header, or any bytes changed."""
    content = draw(st.sampled_from(contents))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(mutated([content], most=3))
    length = struct.unpack("<Q", content[:8])[0]
    header, body = content[8 : 8 + length], content[8 + length :]
    if kind == 1:
        return struct.pack("<Q", draw(st.sampled_from([*map(abs, NUMBERS[:-1]), length - 1, length + 1]))) + content[8:]
    if kind == 2:
        header = draw(mutated([header], most=2))
    else:
        tree = json.loads(header)
        for name in draw(st.lists(st.sampled_from(sorted(tree)), max_size=2)):
            if "dtype" in tree[name] and draw(st.booleans()):
                tree[name]["dtype"] = draw(st.sampled_from(DTYPES))
        numbers = [[a, b] for a in NUMBERS for b in NUMBERS]
        header = json_text(draw(mutated_tree([tree], (*VALUES, *NUMBERS, *numbers, *DTYPES)))).encode()
    return struct.pack("<Q", len(header)) + header + body


def tensors_of(content: bytes):
    """Today's name and the values of each tensor, by the format's specification."""
    length = struct.unpack("<Q", content[:8])[0]
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__" and entry["dtype"] in kinds:
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[first:last], kinds[entry["dtype"]]).reshape(entry["shape"])
            yield standard_name(name), values.astype(np.float32)


def forged(length: int) -> bytes:
    return struct.pack("<Q", length) + b"{}"


HUGE = json.dumps({"x": {"dtype": "F32", "shape": [2**29, 2**10], "data_offsets": [0, 2**41]}}).encode()
ALWAYS = [b"", b"\0" * 8, forged(2**31), forged(2**63), forged(99_999_999), struct.pack("<Q", len(HUGE)) + HUGE]
DEEP = b'{"__metadata__":' + b"[" * 100_000
ALWAYS.append(struct.pack("<Q", len(DEEP)) + DEEP)


def test_encoders(tmp_path):
    encoder = write_encoder(tmp_path / "encoder", **SMALL)
    path, index = encoder / "model.safetensors", encoder / "model.safetensors.index.json"
    weights = tiny_weights(SMALL)
    halves = save({name: value.astype(np.float16) for name, value in weights.items()})
    named = save(
        {f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma')}": value for name, value in weights.items()}
    )
    contents = [path.read_bytes(), halves, named]
    (encoder / "shard.safetensors").write_bytes(contents[0])
    map_tree = {"metadata": {}, "weight_map": dict.fromkeys(sorted(weights)[:4], "shard.safetensors")}
    values = (*VALUES, "../shard.safetensors", "/etc/passwd", ".", "..", "shard.safetensors/", "x" * 300)
    indices = mutated_tree([map_tree], values).map(json_text).map(str.encode) | mutated([json.dumps(map_tree).encode()])
    cases = safetensors_files(contents).map(lambda content: (path, content)) | indices.map(lambda text: (index, text))

    def check(case) -> bool:
        for each in (path, index):
            each.unlink(missing_ok=True)
        case[0].write_bytes(case[1])
        found, refused = attempt(lambda: encoder_source.open_source(str(encoder)).weights(), path.name, index.name)
        if refused is None:
            stored = dict(tensors_of(case[1] if case[0] == path else contents[0]))
            for name, value in found.items():
                assert value.shape == weights[name].shape if name in weights else name.startswith("classifier.")
                assert value.dtype == np.float32 and np.array_equal(value, stored[name])
            assert weights.keys() - found.keys() <= {"pooler.dense.weight", "pooler.dense.bias"}
        return refused is not None

    always = [(path, content) for content in ALWAYS] + [(index, b"[" * 100_000)]
    fuzz("safetensors, encoder", cases, check, always)


def test_classifiers(tmp_path):
    weights = {f"bert.{name}": value for name, value in tiny_weights(SMALL).items()}
    weights |= {"classifier.weight": np.ones((2, 4), np.float32), "classifier.bias": np.zeros(2, np.float32)}
    ranges = {"x.minimum": np.float32(-1.0).reshape(()), "x.maximum": np.float32(1.0).reshape(())}
    whole = Classifier(Architecture.from_dict(SMALL), ("a", "b"), "single_label", 32, weights, ranges)
    tokenizer = write_encoder(tmp_path / "encoder", **SMALL)
    for name in ("config.json", "model.safetensors"):
        (tokenizer / name).unlink()
    directory = tmp_path / "train"
    directory.mkdir()
    save_classifier(directory, whole, tokenizer)
    names = ("config.json", "model.safetensors", "quantization.safetensors")
    files = {name: (directory / name).read_bytes() for name in names}
    tree = json.loads(files["config.json"])
    texts = mutated_tree([tree]).map(json_text).map(str.encode) | mutated([files["config.json"]], most=2)
    cases = texts.map(lambda text: (names[0], text))
    for name in names[1:]:
        cases |= safetensors_files([files[name]]).map(lambda content, name=name: (name, content))

    def check(case) -> bool:
        for name, content in {**files, case[0]: case[1]}.items():
            (directory / name).write_bytes(content)
        found, refused = attempt(lambda: load_classifier(directory), str(directory))
        if refused is None:
            assert found.task in ("single_label", "multi_label") and all(isinstance(name, str) for name in found.labels)
            assert type(found.max_length) is int and found.architecture.num_hidden_layers >= 1
            assert all(value.dtype == np.float32 for value in found.weights.values())
        return refused is not None

    always = [(name, content) for name in names for content in (*ALWAYS, b"[" * 100_000)]
    fuzz("safetensors, classifier", cases, check, always)


def test_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "say", lambda text: None)
    model = tf.Module()
    model.kernel, model.step = tf.Variable(tf.ones([2, 3])), tf.Variable(7, dtype=tf.int64)
    stage = StageDirectory("train", tmp_path / "train", {})
    with Checkpoints(stage, {"model": model}) as checkpoints:
        checkpoints.save(Progress(7))
    path, marker = (stage.checkpoints / "step-7" / name for name in ("state.safetensors", "checkpoint.json"))
    whole, record = path.read_bytes(), json.loads(marker.read_text())

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        marker.write_text(json.dumps(sealed(record | {"files": {"step-7/state.safetensors": sha256_of_file(path)}})))
        progress, refused = attempt(Checkpoints(stage, {"model": model}).restore, path.name)
        if refused is None:
            stored = load(content)
            assert progress.step == 7 and np.array_equal(model.kernel.numpy(), stored["model/kernel"], equal_nan=True)
        return refused is not None

    fuzz("safetensors, checkpoint", safetensors_files([whole]), check, ALWAYS)
