"""What a run keeps about itself: a damaged record is no record, never a traceback and never another run's result."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, TokenRow, tiny_vocabulary, write_token_table
from fuzz.harness import VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st

from tfpipe.encoders.architecture import check_architecture
from tfpipe.encoders.transformers import read_json
from tfpipe.files import sha256_of_directory, sha256_of_file
from tfpipe.provenance import package_versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import Fingerprint, sealed
from tfpipe.rundir.published import find_saved_model
from tfpipe.rundir.record import Published
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import MANIFEST, TokenTable
from tfpipe.train import checkpoints as checkpoints_module
from tfpipe.train.checkpoints import Checkpoints, Progress

FINGERPRINT = Fingerprint(
    {"seed": 0, "train": {"epochs": 1}}, {"rows.csv": "0" * 64}, {}, {"tfpipe": "0.1", "stage": 1}
)
RECORD_VALUES = (
    *VALUES,
    {"serving/dense/1": "00"},
    {"serving/int8/1": "00"},
    {"serving/dense/2": 1},
    ["serving/dense/1"],
    "serving/dense/1",
    {"sha256": "x", "size_bytes": 7},
)


def records(tree) -> st.SearchStrategy[bytes]:
    """Damaged bytes, and trees of other values whose seal is whole, as nobody but an attacker writes them."""
    text = json.dumps(tree, indent=2).encode()
    trees = mutated_tree([tree], RECORD_VALUES)
    return (trees | trees.map(resealed)).map(json_text).map(str.encode) | mutated([text], most=2)


def resealed(tree):
    return sealed(tree) if isinstance(tree, dict) else tree


@pytest.fixture
def committed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    (run.path / "serving" / "dense" / "2").mkdir(parents=True)
    (run.path / "serving" / "dense" / "2" / "saved_model.pb").write_text("graph")
    with run.stage("publish", FINGERPRINT) as stage:
        (stage.path / "below").mkdir()
        (stage.path / "below" / "table").write_text("numbers")
        (stage.path / "model").write_text("weights")
        sha256 = sha256_of_directory(run.path / "serving" / "dense" / "2")
        stage.published["serving/dense/2"] = Published(sha256=sha256, size_bytes=len("graph"))
    (run.path / "serving" / "dense" / "²").mkdir()
    (run.path / "config.yaml").write_text("")
    return run


def test_stage_records(committed, tmp_path):
    run, path = committed, committed.path / "publish" / "stage.json"
    whole = json.loads(path.read_text())
    digests = {name: sha256_of_file(run.path / "publish" / name) for name in whole["files_written"]}

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        record, refused = attempt(lambda: run.record("publish"), str(path))
        if refused is not None:  # what it names is outside of the run
            return True
        reason = run.why_redo("publish", FINGERPRINT)
        assert reason is None or len(reason.splitlines()) == 1
        found, _ = attempt(lambda: find_saved_model(run.path, "dense"), str(run.path))
        assert found is None or (found.name == "2" and record is not None and not record.inputs)
        if record is None:
            assert reason == "its stage.json is damaged, or of another tfpipe"
            return True
        if reason is None:
            assert record.fingerprint == FINGERPRINT.digest
        _, refused = attempt(lambda: run.verified("publish"), str(run.path))
        if refused is None:
            for name, entry in record.files_written.items():
                assert sha256_of_file(run.path / "publish" / name) == entry.sha256 and len(digests) == 2
        other = RunDirectory(tmp_path / "other")
        shutil.rmtree(other.path, ignore_errors=True)
        other.path.mkdir()
        assert other.adopt("publish", FINGERPRINT, run) == (reason is None)
        return False

    fuzz("stage.json", records(whole), check, [b"[" * 100_000, b"", b"null", b"\xff\xfe{\0}\0"])


def test_work_records(tmp_path):
    run = RunDirectory(tmp_path / "run")
    stage = run.path / "train"
    work = {"fingerprint": FINGERPRINT.digest, "versions": package_versions()}

    def check(content: bytes) -> bool:
        shutil.rmtree(stage, ignore_errors=True)
        (stage / "checkpoints").mkdir(parents=True)
        (stage / "checkpoints" / "kept").write_text("x")
        (stage / "work.json").write_bytes(content)
        try:
            begun = json.loads(content)
        except (ValueError, RecursionError):
            begun = None
        with pytest.raises(ZeroDivisionError), run.stage("train", FINGERPRINT) as directory:
            assert (directory.checkpoints / "kept").exists() == (begun == work)
            raise ZeroDivisionError
        return begun != work

    fuzz("work.json", records(work), check, [b"[" * 100_000])


class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.step = tf.Variable(tf.zeros([2, 3])), tf.Variable(0, dtype=tf.int64)


@pytest.fixture
def quiet(monkeypatch):
    said = []
    monkeypatch.setattr(checkpoints_module, "say", said.append)
    return said


def test_checkpoint_records(tmp_path, quiet):
    original = tmp_path / "original"
    model = Model()
    kept = Checkpoints(StageDirectory("train", original, {}), {"model": model})
    original.mkdir()
    for step in (3, 7):
        model.kernel.assign(tf.fill([2, 3], float(step)))
        model.step.assign(step)
        kept.save_best(step)
        kept.save(Progress(step, [{"loss": 1.0}], 0.5, step))
    kept.wait()
    tree = json.loads((kept.directory / "step-7" / "checkpoint.json").read_text())
    work = tmp_path / "work"

    def check(content: bytes) -> bool:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(original, work)
        (work / "checkpoints" / "step-x").mkdir()
        (work / "checkpoints" / "step-x" / "checkpoint.json").write_text("{}")
        (work / "checkpoints" / "step-7" / "checkpoint.json").write_bytes(content)
        checkpoints = Checkpoints(StageDirectory("train", work, {}), {"model": model})
        progress, refused = attempt(checkpoints.restore, str(work))
        if refused is None:
            found = float(model.kernel[0, 0])
            assert found == float(model.step) and found in (3.0, 7.0) and type(progress.step) is int
            checkpoints.save(Progress(9))
            checkpoints.wait()
            assert Checkpoints(StageDirectory("train", work, {}), {"model": model}).restore().step == 9
        return refused is not None or progress.step == 3

    fuzz("checkpoint.json", records(tree), check, [b"[" * 100_000, b"", b"{}"])


def test_token_tables(tmp_path):
    random = np.random.default_rng(0)
    rows = [
        TokenRow(random.integers(5, 60, n).astype(np.int32), np.zeros(n, np.int32), np.eye(2)[n % 2], n, "text ü")
        for n in range(3, 12)
    ]
    write_token_table(tmp_path, rows, num_labels=2, shard_rows=5)
    files = {name: (tmp_path / name).read_bytes() for name in (MANIFEST, "part-00000.arrow", "part-00001.arrow")}
    manifests = records(json.loads(files[MANIFEST])).map(lambda content: (MANIFEST, content))
    shards = mutated([files["part-00001.arrow"]], most=3).map(lambda content: ("part-00001.arrow", content))

    def check(case) -> bool:
        for name, content in {**files, case[0]: case[1]}.items():
            (tmp_path / name).write_bytes(content)
        table, refused = attempt(lambda: TokenTable.open(tmp_path), str(tmp_path), ": not a whole token table")
        if refused is None and table.num_rows:
            batch = table.batch(np.arange(table.num_rows)[:, None], int(table.lengths.max()))
            assert (batch["segment_ids"] != 0).sum() == table.lengths.sum()
            assert batch["labels"].shape[-1] == table.num_labels
            table.distinct_ids()
        return refused is not None

    always = [(MANIFEST, b'{"num_labels": %d, "pad_id": 0, "shards": []}' % (1 << n)) for n in (31, 63, 64)]
    always += [(MANIFEST, b"[" * 100_000), ("part-00001.arrow", b"")]
    fuzz("table.json and its shards", manifests | shards, check, always)


def test_model_configurations(tmp_path):
    valid = TINY | {"vocab_size": len(tiny_vocabulary())}
    pruned = valid | {"attention_heads_per_layer": [1, 2], "intermediate_size_per_layer": [3, 64]}
    path = tmp_path / "config.json"
    trees = mutated_tree([valid, pruned], (*VALUES, 10**9, 10**400, "bert", [1, 1], [10**9] * 2))

    def check(content: bytes) -> bool:
        path.write_bytes(content)

        def read():
            architecture = check_architecture(read_json(path), str(path))
            return json.loads(json.dumps(architecture.to_dict())), architecture.tensor_shapes()

        found, refused = attempt(read, path.name)
        if refused is None:
            given = json.loads(content)
            assert all(found[0][key] == given[key] for key in found[0] if key in given and key != "hidden_act")
            assert len(found[1]) == 7 + 16 * given["num_hidden_layers"]
        return refused is not None

    text = json.dumps(valid).encode()
    fuzz("config.json", trees.map(json_text).map(str.encode) | mutated([text]), check, [b"[" * 100_000])
