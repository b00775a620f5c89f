"""A sweep over the finished run's configuration: what is shared is done once, what fails is shown, it goes on."""

import json
import shutil

import pytest

from tfpipe.config.file import dump_config, load_config, read_yaml
from tfpipe.errors import GateError, InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools import sweep
from tfpipe.tools.sweep import as_yaml, parse_axis, slug


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prune.sparsity=0.5,0.8", ("prune.sparsity", [0.5, 0.8])),
        ("quantize.mode=qat,ptq", ("quantize.mode", ["qat", "ptq"])),
        ("prune=null", ("prune", [None])),
        ("prune={method: two_four},{sparsity: 0.8}", ("prune", [{"method": "two_four"}, {"sparsity": 0.8}])),
        ("distill.student.layers=[0, 1],[1]", ("distill.student.layers", [[0, 1], [1]])),
        ("train.learning_rate=1.0e-4", ("train.learning_rate", [1e-4])),
    ],
)
def test_axes(text, expected):
    assert parse_axis(text) == expected


def test_a_mapping_keeps_its_order():
    """That of the names is that of the outputs: two orders are two points."""
    name, values = parse_axis("data.label_names={1: good, 0: bad},{0: bad, 1: good}")
    assert [list(value) for value in values] == [[1, 0], [0, 1]]
    assert [as_yaml(value) for value in values] == ["{1: good, 0: bad}", "{0: bad, 1: good}"]
    assert [list(read_yaml(as_yaml(value), where=name)) for value in values] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "text", ["prune.sparsity", "=1,2", "a=", "a=[1", "a=1,1", "a=null,null", "a=2024-13-45,1", "a=!!bool x"]
)
def test_what_is_no_axis_is_refused(text):
    with pytest.raises(InputError, match="--grid"):
        parse_axis(text)


def test_labels_become_names_of_directories():
    assert slug("prune.sparsity=0.5 quantize.mode=qat") == "prune.sparsity=0.5_quantize.mode=qat"
    first, second = slug("encoder.source=models/bert_a"), slug("encoder.source=models_bert/a")
    assert first.startswith("encoder.source=models_bert_a-") and first != second
    assert len(slug("a=" + "x" * 999)) < 200 and slug("a=1") == "a=1"


@pytest.fixture(scope="module")
def file(tiny_run, tmp_path_factory):
    """The configuration of the finished run, and beside it a sweep in which that run is the first point."""
    config, run = tiny_run
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "tiny.yaml").write_text(dump_config(config))
    first = directory / "out" / "points" / "prune.sparsity=0.5_quantize.mode=qat"
    shutil.copytree(run, first)
    shutil.rmtree(first / "serving")
    return directory / "tiny.yaml"


@pytest.fixture(scope="module")
def swept(file, tmp_path_factory):
    """A sweep of two by two points; one of them is outside the budget."""
    directory = file.parent / "out"
    grid = ["prune.sparsity=0.5,0.9", "quantize.mode=qat,ptq"]
    sweep.run(file, grid, directory, ["budget.max_drop=0.02"])
    return directory, grid


def test_every_point_has_its_variants_in_the_table(swept):
    directory, _ = swept
    found = json.loads((directory / "sweep.json").read_text())
    rows = found["rows"]
    labels = [f"prune.sparsity={s} quantize.mode={m}" for s in (0.5, 0.9) for m in ("qat", "ptq")]
    shown = {(row["point"], row["variant"]) for row in rows}
    # the dense model of all, the pruned ones of two points each: once
    expected = {(labels[0], "dense"), (labels[0], "pruned"), (labels[2], "pruned")}
    assert shown == expected | {(label, "int8") for label in labels} and len(rows) == 7
    for row in rows:
        assert row["latency_ms"] > 0 and row["speedup"] > 0 and row["size_bytes"] > 0
        assert 0.0 <= row["validation_accuracy"] <= 1.0 and row["rows"] == row["of"] == 85
    table = (directory / "sweep.md").read_text()
    assert table.count("\n| ") >= 8 and "Test accuracy: all 85 test rows. " in table
    assert (directory / "pareto.svg").stat().st_size > 10_000


def test_shared_stages_are_done_once(swept):
    directory, _ = swept
    points = sorted((directory / "points").iterdir())
    assert len(points) == 4
    for stage, distinct in (("prepare", 1), ("train", 1), ("prune", 2), ("quantize", 4)):
        finished = {json.loads((point / stage / "stage.json").read_text())["finished"] for point in points}
        inodes = {(point / stage / "stage.json").stat().st_ino for point in points}
        assert len(inodes) == distinct and len(finished) <= distinct, stage


def test_what_is_outside_the_budget_is_shown(swept):
    directory, _ = swept
    found = json.loads((directory / "sweep.json").read_text())
    failed = [row for row in found["rows"] if row["variant"] == "int8" and not row["within_budget"]]
    assert failed and {row["point"] for row in failed} == set(found["failures"])
    assert list(directory.glob("points/*/serving")) == []  # a sweep publishes nothing
    assert "outside the budget" in (directory / "sweep.md").read_text()


def test_a_sweep_goes_on_where_it_was(swept, file, capsys):
    directory, grid = swept
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("quantize/stage.json")}
    sweep.run(file, grid, directory, ["budget.max_drop=0.02"])
    said = capsys.readouterr().err
    assert said.count("quantize: up to date") == 4
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("quantize/stage.json")}


def test_all_are_timed_against_the_first_whatever_their_dense_model(swept, file, monkeypatch):
    rows = json.loads((swept[0] / "sweep.json").read_text())["rows"]
    rows = [row | {"latency_ms": 1.0, "speedup": None} for row in rows]
    rows += [row | {"model": f"another {row['model']}"} for row in rows]
    rows[-1]["latency_ms"] = None  # takes no rows that long
    groups, real = [], sweep.time_in_turn
    monkeypatch.setattr(sweep, "TOGETHER", 3)
    monkeypatch.setattr(sweep, "time_in_turn", lambda *given: groups.append(real(*given)) or groups[-1])
    sweep._time_together(rows, load_config(file))
    assert rows[0]["speedup"] == 1.0 and rows[-1]["speedup"] is rows[-1]["latency_ms"] is None
    for row in rows[:-1]:
        key = row["variant"], row["model"]
        group = next(group for group in groups if key in group)
        assert (row["latency_ms"], row["speedup"]) == (group[key], group["dense", rows[0]["model"]] / group[key])
    assert len(groups) == 6 and all(len(group) == 3 for group in groups)  # 13 files: the first, and two at a time


def test_where_no_point_passes_the_exit_says_so(swept, file):
    directory, _ = swept
    grid = ["prune.sparsity=0.5", "quantize.mode=qat"]
    with pytest.raises(GateError, match=r"sweep: no point passed its gates; prune.sparsity=0.5 .*max_latency_ms"):
        sweep.run(file, grid, directory, ["budget.max_latency_ms=0.0001"])


def test_a_point_that_can_not_run_does_not_stop_the_others(swept, file):
    directory, _ = swept
    grid = ["train.class_weights={unheard: 2.0},null", "quantize.mode=ptq"]
    with pytest.raises(InputError, match=r"sweep: 1 of 2 points could not run; .*no label 'unheard'"):
        sweep.run(file, grid, directory, [])
    found = json.loads((directory / "sweep.json").read_text())
    assert len(found["failures"]) == 1 and len(found["rows"]) == 3
    # what earlier points of other grids did is taken over
    point = directory / "points" / slug("train.class_weights=null quantize.mode=ptq")
    others = {path.stat().st_ino for path in directory.glob("points/prune*/quantize/stage.json")}
    assert (point / "quantize" / "stage.json").stat().st_ino in others


def test_only_one_sweep_works_in_a_directory(swept, file):
    directory, grid = swept
    with RunDirectory(directory).lock(), pytest.raises(InputError, match="in use by another run"):
        sweep.run(file, grid, directory, [])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["budget.artifact=onnx,saved_model"], "--grid budget…: all points are measured and checked alike"),
        (["verify.threads=1,2"], "--grid verify…: all points are measured and checked alike"),
        (["prune.sparsity=0.5,1.0"], "prune.sparsity: nothing would be left"),
        (["prune.sparsitty=0.5"], "did you mean sparsity"),
        (["prune.sparsity=0.5", "prune.sparsity=0.8"], "two --grid options"),
        (["budget.max_size_bytes=10"], "^budget.max_size_bytes=10: budget.max_size_bytes: 10, but the weights"),
    ],
)
def test_a_wrong_point_is_refused_before_any_runs(file, tmp_path, grid, message):
    with pytest.raises(InputError, match=message):
        sweep.run(file, grid, tmp_path / "new", [])
    assert not (tmp_path / "new").exists()
