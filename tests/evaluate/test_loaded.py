import weakref

import numpy as np
import pytest

from tfpipe import metrics
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.evaluate.loaded import batches_of, load_artifacts
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.tokens.table import TokenTable

STAGES = {"dense": "train", "pruned": "prune", "int8": "quantize"}


@pytest.fixture(scope="module")
def artifacts(tiny_run):
    """Variant -> its artifacts, in four ways."""
    _, directory = tiny_run
    formats = ("saved_model", "onnx")
    return {
        variant: [
            each
            for ways in load_artifacts(variant, directory / stage, directory / "export" / variant, formats, 1)
            for each in ways
        ]
        for variant, stage in STAGES.items()
    }


@pytest.fixture(scope="module")
def table(tiny_run):
    return TokenTable.open(tiny_run[1] / "prepare" / "test")


def test_each_variant_has_four_artifacts_with_their_own_files(artifacts, tiny_run):
    _, directory = tiny_run
    for variant, stage in STAGES.items():
        found = {artifact.kind: artifact for artifact, _ in artifacts[variant]}
        assert tuple(found) == ("keras", "saved_model", "saved_model_text", "onnx") and {
            artifact.variant for artifact in found.values()
        } == {variant}
        assert found["onnx"].path == directory / "export" / variant / "onnx"
        assert found["onnx"].size_bytes == graph_file(found["onnx"].path).stat().st_size
        saved = directory / "export" / variant / "saved_model"
        assert found["saved_model"].path == found["saved_model_text"].path == saved
        assert found["saved_model"].size_bytes == sum(f.stat().st_size for f in saved.rglob("*") if f.is_file())
        stored = [path.stat().st_size for path in (directory / stage).glob("[mq]*.safetensors")]
        assert found["keras"].size_bytes == sum(stored) and len(stored) == (2 if variant == "int8" else 1)


def test_zeros_are_counted_in_each_file(artifacts):
    for artifact, _ in artifacts["dense"]:
        assert artifact.sparsity < 0.01
    for variant in ("pruned", "int8"):
        for artifact, _ in artifacts[variant]:
            assert artifact.sparsity == pytest.approx(0.5, abs=0.01), artifact.kind


def test_the_weights_of_an_int8_saved_model_are_smaller(artifacts):
    """By three bytes of four of what is quantized; its graph is larger, by some functions for each kernel."""
    paths = {
        variant: next(each.path for each, _ in found if each.kind == "saved_model")
        for variant, found in artifacts.items()
    }
    sizes = {name: sum(file.stat().st_size for file in (path / "variables").iterdir()) for name, path in paths.items()}
    assert sizes["int8"] < sizes["dense"] - 2 * 20_000


def test_raw_text_takes_only_what_the_run_was_cut_to(artifacts):
    for artifact, _ in artifacts["dense"]:
        assert artifact.longest == (32 if artifact.kind == "saved_model_text" else 64)


@pytest.mark.parametrize(("variant", "tolerance"), [("dense", 1e-5), ("pruned", 1e-5), ("int8", 0.1)])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_every_artifact_answers_like_keras(artifacts, table, variant, tolerance, batch_size):
    rows = np.arange(14)
    for _, batch in batches_of(table, rows, batch_size):
        reference, *others = [answer.ask(batch) for _, answer in artifacts[variant]]
        assert reference.shape == (len(batch.texts), 2) and reference.dtype == np.float32
        for answer in others:
            assert metrics.scaled_difference(answer, reference) < tolerance


def test_an_artifact_leaves_memory_before_the_next_one_comes(tiny_run):
    _, directory = tiny_run
    known = []

    def use(ways):
        assert all(each() is None for each in known)
        known.extend(weakref.ref(way.answer.ask) for way in ways)
        return [way.artifact.kind for way in ways]

    formats = ("saved_model", "onnx")
    loaded = load_artifacts("dense", directory / "train", directory / "export" / "dense", formats, 1)
    assert list(map(use, loaded)) == [["keras"], ["saved_model", "saved_model_text"], ["onnx"]]


def test_a_saved_model_s_tokenizer_makes_the_ids_of_the_table(artifacts, table):
    (way,) = (answer for artifact, answer in artifacts["dense"] if artifact.kind == "saved_model_text")
    for _, batch in batches_of(table, np.arange(20), 7):
        ids = way.tokenize(batch)
        assert all(np.array_equal(ids[name], value) for name, value in batch.tokens.items())


def test_batches_cover_each_row_once_padded_to_its_own_longest(table):
    rows = np.arange(3, table.num_rows, 2)
    seen = []
    for chunk, batch in batches_of(table, rows, 8):
        seen += chunk.tolist()
        longest = int(table.lengths[chunk].max())
        assert batch.tokens.keys() == set(INFERENCE_INPUTS)
        assert all(value.shape == (len(chunk), longest) for value in batch.tokens.values())
        assert batch.tokens["attention_mask"].sum(axis=1).tolist() == table.lengths[chunk].tolist()
        assert batch.texts == table.texts(chunk) and batch.text_pairs is None
    assert sorted(seen) == rows.tolist() and table.lengths[seen].tolist() == sorted(table.lengths[rows])
