import importlib.metadata
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

import tfpipe
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file, write_json, write_text
from tfpipe.provenance import package_versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import Fingerprint, sealed
from tfpipe.rundir.record import Written


def fingerprint(epochs=1, files=None, inputs=None):
    settings = {"train": {"epochs": epochs, "precision": "auto"}, "seed": 0}
    return Fingerprint(settings, files or {"rows.csv": "aa"}, inputs or {}, {"tfpipe": "0.1", "stage": 1})


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run")


DAMAGED = "its stage.json is damaged, or of another tfpipe"


def commit(run, name="train", begun=None, content="weights"):
    """Does a stage as `pipeline.run` does, with a file at the top and one below."""
    with run.stage(name, begun or fingerprint()) as stage:
        stage.checkpoints.mkdir(exist_ok=True)
        (stage.checkpoints / "step-1").write_text("1")
        stage.logs.mkdir(exist_ok=True)
        (stage.logs / "events").write_text(f"{os.urandom(8)}")
        (stage.path / "below").mkdir()
        (stage.path / "model").write_text(content)
        (stage.path / "below" / "vocabulary").write_text("a\nb\n")
        stage.notes["precision"] = "float32"
    return stage


def begin(run, begun, name="train"):
    """Work that ends with a failure: a checkpoint, a log and half an output."""
    with pytest.raises(ZeroDivisionError), run.stage(name, begun) as stage:
        stage.checkpoints.mkdir()
        (stage.checkpoints / "step-1").write_text("1")
        stage.logs.mkdir()
        (stage.logs / "events").write_text("event")
        (stage.path / "model").write_text("hal")
        (stage.path / "below").mkdir()
        raise ZeroDivisionError
    return stage


def test_a_stage_is_committed_when_its_block_ends_well(run):
    assert run.record("train") is None and run.why_redo("train", fingerprint()) == "not done yet"
    stage = commit(run)
    record = run.record("train")
    assert run.why_redo("train", fingerprint()) is None
    assert record.notes == {"precision": "float32"} and record.settings == fingerprint().settings
    assert record.code == {"tfpipe": "0.1", "stage": 1}
    assert set(record.files_written) == {"model", "below/vocabulary"}
    assert record.files_written["model"] == Written(sha256=sha256_of_file(stage.path / "model"), size_bytes=7)
    assert {child.name for child in stage.path.iterdir()} == {"model", "below", "logs", "stage.json"}
    assert record.versions["tensorflow"] and record.machine and record.seconds >= 0


def test_a_stage_that_fails_is_not_committed(run):
    stage = begin(run, fingerprint())
    assert run.record("train") is None and run.why_redo("train", fingerprint()) == "not done yet"
    assert (stage.path / "model").exists()


def test_work_under_the_same_fingerprint_is_continued(run):
    begin(run, fingerprint())
    with run.stage("train", fingerprint()) as stage:
        assert (stage.checkpoints / "step-1").read_text() == "1" and (stage.logs / "events").exists()
        assert not (stage.path / "model").exists() and not (stage.path / "below").exists()


def test_work_under_another_fingerprint_is_cleared(run):
    begin(run, fingerprint())
    with run.stage("train", fingerprint(epochs=2)) as stage:
        assert not stage.checkpoints.exists() and not stage.logs.exists() and not (stage.path / "model").exists()


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("tensorflow", "2.19.0", "tensorflow 2.19.0"), ("tfpipe", "0.0.9", "tfpipe 0.0.9"),
        ("python", "3.10.1", "python 3.10.1"), ("numpy", None, "no numpy"), ("gone", "1.0", "gone 1.0"),
    ],
)  # fmt: skip
def test_work_under_other_versions_is_begun_anew_and_says_so(run, capsys, package, version, said):
    stage = begin(run, fingerprint())
    work = json.loads((stage.path / "work.json").read_text())
    assert work == {"fingerprint": fingerprint().digest, "versions": package_versions()}
    work["versions"] = {name: each for name, each in (work["versions"] | {package: version}).items() if each}
    write_json(stage.path / "work.json", work)
    capsys.readouterr()
    with run.stage("train", fingerprint()) as stage:
        assert not stage.checkpoints.exists() and not stage.logs.exists() and not (stage.path / "model").exists()
        assert json.loads((stage.path / "work.json").read_text())["versions"] == package_versions()
    assert capsys.readouterr().err == f"  train begins anew, as it was begun with {said}\n"
    assert run.record("train").versions == package_versions()


def test_the_version_of_tfpipe_is_that_of_the_code():
    assert package_versions()["tfpipe"] == tfpipe.__version__
    installed = {"tensorflow-text", "tokenizers", "rensa", "regex", "scikit-learn", "nltk", "datasets", "keras-nlp"}
    for name in installed:
        assert package_versions()[name] == importlib.metadata.version(name)


def test_work_of_unknown_origin_is_cleared(run):
    stage = begin(run, fingerprint())
    digest = json.dumps({"fingerprint": fingerprint().digest})  # of before there were versions
    for content in ("", "[]", "{}", '{"fingerprint": null}', "\xff", digest):
        (stage.path / "work.json").write_text(content)
        (stage.path / "model").write_text("model")
        with pytest.raises(ZeroDivisionError), run.stage("train", fingerprint()) as stage:
            assert not stage.checkpoints.exists()
            stage.checkpoints.mkdir()
            raise ZeroDivisionError


def test_doing_a_committed_stage_again_starts_from_nothing(run):
    commit(run)
    with run.stage("train", fingerprint()) as stage:
        assert {child.name for child in stage.path.iterdir()} == {"work.json"}
        assert run.record("train") is None  # a kill from here on leaves no stage that looks done


def test_a_kill_between_the_two_records_leaves_a_commit_that_can_be_redone(run):
    stage = commit(run)
    versions = run.record("train").versions
    write_json(stage.path / "work.json", {"fingerprint": fingerprint().digest, "versions": versions})
    assert run.why_redo("train", fingerprint()) is None
    (stage.path / "model").unlink()
    with pytest.raises(ZeroDivisionError), run.stage("train", fingerprint()):
        assert run.record("train") is None
        raise ZeroDivisionError
    assert run.why_redo("train", fingerprint()) == "not done yet"


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "{}", '{"files_written": 3}', '{"files_written": {}}'])
def test_a_record_that_is_not_whole_is_not_trusted(run, content):
    stage = commit(run)
    (stage.path / "stage.json").write_text(content)
    assert run.why_redo("train", fingerprint()) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"files_written": {"model": 1}}, {"files_written": {"model": {"sha256": 3, "size_bytes": 7}}},
        {"files_written": {"model": {"sha256": "x", "size_bytes": "7"}}}, {"settings": []}, {"files": {"a": 1}},
        {"inputs": None},
        {"notes": None}, {"published": 1}, {"published": {"serving/dense/1": "00"}}, {"output": 3}, {"code": None},
        {"fingerprint": None}, "[" * 100_000,
    ],
)  # fmt: skip
def test_a_record_with_something_of_another_kind_is_no_commit(run, changes):
    record = commit(run).path / "stage.json"
    whole = json.loads(record.read_text())
    record.write_text(changes if isinstance(changes, str) else json.dumps(sealed(whole | changes)))
    assert run.record("train") is None and run.why_redo("train", fingerprint()) == DAMAGED


def test_a_record_of_which_a_byte_was_changed_is_no_commit(run):
    record = commit(run).path / "stage.json"
    text = record.read_text()
    record.write_text(text.replace('"seconds": 0', '"seconds": 1'))
    assert record.read_text() != text and run.why_redo("train", fingerprint()) == DAMAGED


def test_a_recorded_file_with_a_name_that_none_can_have_is_missing(run):
    record = commit(run).path / "stage.json"
    whole = json.loads(record.read_text())
    whole["files_written"]["x" * 5000] = whole["files_written"]["model"]
    record.write_text(json.dumps(sealed(whole)))
    assert "is missing" in run.why_redo("train", fingerprint())
    with pytest.raises(InputError, match="its content is not what stage train wrote"):
        run.verified("train")


def test_a_damaged_record_of_work_starts_it_anew(run):
    stage = begin(run, fingerprint())
    (stage.path / "work.json").write_text("[" * 100_000)
    with run.stage("train", fingerprint()) as again:
        assert not again.checkpoints.exists()


def test_a_truncated_record_is_not_a_commit(run):
    stage = commit(run)
    text = (stage.path / "stage.json").read_text()
    for length in (1, len(text) // 2, len(text) - 3):
        (stage.path / "stage.json").write_text(text[:length])
        assert run.why_redo("train", fingerprint()) == DAMAGED


def test_a_file_that_is_missing_or_shorter_means_redo(run):
    stage = commit(run)
    (stage.path / "below" / "vocabulary").unlink()
    assert run.why_redo("train", fingerprint()) == "below/vocabulary is missing or has another size"
    commit(run)
    assert run.why_redo("train", fingerprint()) is None
    (stage.path / "model").write_text("weigh")
    assert run.why_redo("train", fingerprint()) == "model is missing or has another size"


def test_a_flipped_byte_is_found_before_it_is_read(run):
    stage = commit(run)
    assert run.verified("train") == stage.path
    (stage.path / "model").write_text("weightz")
    with pytest.raises(InputError, match=r"model: its content is not what stage train wrote.*--redo train"):
        run.verified("train")
    inputs = {"train": run.record("train").output}
    with pytest.raises(InputError, match="--redo train"), run.stage("prune", fingerprint(inputs=inputs)):
        pytest.fail("a stage must not begin with a changed input")


def test_a_stage_gets_the_directories_of_its_inputs(run):
    commit(run)
    inputs = {"train": run.record("train").output}
    with run.stage("prune", fingerprint(inputs=inputs)) as stage:
        assert stage.inputs == {"train": run.path / "train"}
    assert run.record("prune").inputs == inputs


def test_the_output_digest_covers_content_and_names_but_not_logs(run):
    def digest(**changes):
        commit(run, **changes)
        return run.record("train").output

    first = digest()
    assert digest() == first  # with another log and another time
    assert digest(content="weightz") != first
    with run.stage("train", fingerprint()) as stage:
        (stage.path / "other").write_text("weights")
        (stage.path / "below").mkdir()
        (stage.path / "below" / "vocabulary").write_text("a\nb\n")
    assert run.record("train").output != first


def test_a_changed_setting_is_named_with_both_values(run):
    commit(run)
    assert run.why_redo("train", fingerprint(epochs=2)) == "train.epochs: 1 -> 2"
    turned_off = replace(fingerprint(), settings={"train": None, "seed": 0})
    assert run.why_redo("train", turned_off) == 'train: {"epochs": 1, "precision": "auto"} -> null'


def test_the_order_of_a_mapping_survives_a_record(run):
    def named(*order):
        return replace(fingerprint(), settings={"data.label_names": dict.fromkeys(order, "name")})

    commit(run, begun=named("1", "0"))
    assert list(run.record("train").settings["data.label_names"]) == ["1", "0"]
    assert run.why_redo("train", named("1", "0")) is None
    assert run.why_redo("train", named("0", "1")) == "data.label_names: another order: 1, 0 -> 0, 1"


def test_a_stage_that_works_in_another_way_is_done_again(run):
    commit(run)
    later = replace(fingerprint(), code={"tfpipe": "0.1", "stage": 2})
    assert run.why_redo("train", later) == "tfpipe changed how it works (1 -> 2)"
    other = RunDirectory(run.path.parent / "other")
    other.path.mkdir()
    assert not other.adopt("train", later, run) and other.adopt("train", fingerprint(), run)
    record = json.loads((run.path / "train" / "stage.json").read_text())
    del record["code"]  # one of before there were versions
    write_json(run.path / "train" / "stage.json", sealed(record))
    assert run.why_redo("train", fingerprint()) == DAMAGED


def test_changed_files_and_inputs_are_named(run):
    commit(run)
    record = run.record("train").model_copy(update={"inputs": {"prepare": "1"}})
    same = fingerprint(inputs={"prepare": "1"})
    assert fingerprint(files={"rows.csv": "bb"}, inputs={"prepare": "1"}).difference(record) == "content of rows.csv"
    assert fingerprint(inputs={"prepare": "2"}).difference(record) == "output of prepare"
    assert fingerprint(inputs={"prepare": "1", "prune": "3"}).difference(record) == "output of prune"
    several = fingerprint(epochs=3, files={"other.csv": "cc"}, inputs={"prepare": "2"}).difference(record)
    assert several == "train.epochs: 1 -> 3; content of other.csv; output of prepare"
    assert replace(same, files={}).difference(record) == "fewer input files"


def test_a_file_that_only_moved_changes_nothing(run):
    commit(run)
    assert run.why_redo("train", fingerprint(files={"/elsewhere/rows.csv": "aa"})) is None


HOLD = """
import sys, time
from tfpipe.rundir.directory import RunDirectory
with RunDirectory(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_even_killed(run):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            refused = rf"in use by another run \(process {holder.pid} on .*--run-dir"
            with pytest.raises(InputError, match=refused), run.lock():
                pytest.fail("two processes hold one run")
        finally:
            holder.send_signal(signal.SIGKILL)
    with run.lock():
        assert f"process {os.getpid()} on" in (run.path / ".lock").read_text()


def test_the_lock_is_released_when_its_block_ends(run):
    for _ in range(2):
        with run.lock(), pytest.raises(InputError, match="in use"), run.lock():
            pytest.fail("one run is held twice")


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        refused = r"run directory .*can't be written.*--run-dir"
        with pytest.raises(InputError, match=refused), RunDirectory(path).lock():
            pytest.fail("not a place for a run")


def test_json_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    with open(path, encoding="utf-8") as reader:  # a reader that is half through keeps the old file
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": "ä"}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 2} and os.listdir(tmp_path) == ["value.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "text"
    write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_text(path, "new" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
