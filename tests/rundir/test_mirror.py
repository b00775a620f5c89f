"""Runs on a store: `ram://` stands in for `gs://`, a machine is its cache directory, a kill is an exception."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from tfpipe import cli
from tfpipe.errors import InputError
from tfpipe.files import write_json
from tfpipe.rundir import remote
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import Fingerprint
from tfpipe.rundir.record import Published
from tfpipe.rundir.remote import Remote

_numbers = itertools.count()

pytestmark = pytest.mark.usefixtures("ram_replaces")


def fingerprint(epochs=1, inputs=None):
    return Fingerprint({"train": {"epochs": epochs}}, {"rows.csv": "aa"}, inputs or {})


@pytest.fixture
def url():
    return f"ram://test-mirror-{next(_numbers)}/runs/imdb"


@pytest.fixture
def there(url):
    """What lies on the store."""
    return Remote(url)


@pytest.fixture
def machine(tmp_path, monkeypatch, url):
    """A function that starts a process on a machine: `machine("a")` is the run as it is opened there."""
    monkeypatch.setattr(remote, "PAUSES_S", ())

    def opened(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return RunDirectory(url)

    return opened


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.fixture
def writes(monkeypatch):
    """What is changed on the store, in order: `writes.kill_at = n` ends the process before the n-th change."""

    class Writes(list):
        kill_at = None

        def note(self, change):
            if self.kill_at is not None and len(self) >= self.kill_at:
                raise Killed
            self.append(change)

        def reset(self, kill_at=None):
            self.clear()
            self.kill_at = kill_at

    writes = Writes()
    copy, move, remove = remote.copy_file, remote.move_file, Remote.remove

    def copied(source, target):
        if target.startswith("ram://"):
            writes.note(target)
        copy(source, target)

    def moved(source, target):
        writes.note(target)
        move(source, target)

    def removed(self):
        writes.note(f"- {self.url}")
        remove(self)

    monkeypatch.setattr(remote, "copy_file", copied)
    monkeypatch.setattr(remote, "move_file", moved)
    monkeypatch.setattr(Remote, "remove", removed)
    monkeypatch.setattr(remote, "COPIES_AT_ONCE", 1)
    return writes


@pytest.fixture
def reads(monkeypatch):
    """The files that are copied from the store, in order, relative to the run."""
    found, copy = [], remote.copy_file

    def copied(source, target):
        if source.startswith("ram://"):
            found.append(source.partition("/runs/imdb/")[2])
        copy(source, target)

    monkeypatch.setattr(remote, "copy_file", copied)
    return found


def commit(run, name="train", begun=None, content="weights", published=(), **notes):
    """Does a stage as `pipeline.run` does, with a file at the top and one below."""
    with run.stage(name, begun or fingerprint()) as stage:
        (stage.path / "below").mkdir()
        (stage.path / "model").write_text(content)
        (stage.path / "below" / "vocabulary").write_text("a\nb\n")
        stage.logs.mkdir(exist_ok=True)
        (stage.logs / "events").write_text("event")
        stage.published |= {each: Published(sha256="00", size_bytes=0) for each in published}
        stage.notes |= notes


def checkpoint(stage, step, best=None):
    """Saves a checkpoint as the training does: the new one, the file that names it; then the one before goes."""
    path = stage.checkpoints / f"step-{step}"
    path.mkdir(parents=True)
    (path / "state.data").write_bytes(b"%d" % step * remote.SMALL_BYTES)
    (path / "state.index").write_text(f"index of {step}")
    if best is not None:
        (stage.checkpoints / f"best-{best}.index").write_text(f"best {best}")
    write_json(stage.checkpoints / "latest.json", {"step": step})
    for other in stage.checkpoints.glob("step-*"):
        if other != path:
            shutil.rmtree(other)
    stage.keep("latest.json")


def restored(stage):
    """The step from which the training goes on, whose checkpoint must be whole; None: from the start."""
    try:
        step = json.loads((stage.checkpoints / "latest.json").read_text())["step"]
    except FileNotFoundError:
        return None
    path = stage.checkpoints / f"step-{step}"
    assert (path / "state.data").read_bytes() == b"%d" % step * remote.SMALL_BYTES
    assert (path / "state.index").read_text() == f"index of {step}"
    return step


def relative(changes, there):
    return [change.replace(f"{there.url}/", "") for change in changes]


def train_until_killed(run, steps, begun=None):
    """Does a stage whose process ends after these checkpoints."""
    with pytest.raises(Killed), run.lock(), run.stage("train", begun or fingerprint()) as stage:
        for step in steps:
            checkpoint(stage, step)
        raise Killed


def test_a_commit_writes_its_record_last(machine, there, writes, capsys):
    run = machine("a")
    with run.lock():
        (run.path / "config.yaml").write_text("name: imdb\n")
        assert run.why_redo("train", fingerprint()) == "not done yet"
        writes.reset()
        commit(run)
        changes = relative(writes, there)
    assert changes[0] == "config.yaml"  # whether the store can be written shows before any work
    written = [change for change in changes if not change.startswith("- ")]
    assert set(written[1:-1]) == {"train/model", "train/below/vocabulary", "train/logs/events"}
    assert written[-1] == "train/stage.json" and changes[-2:] == ["- train/work.json", "- train/checkpoints"]
    assert there.children() == ["config.yaml", "train"]
    assert f"{there.url}: its copy on this machine is {run.path}" in capsys.readouterr().err
    assert run.path.name.startswith("imdb-") and run.path.parent.parts[-2:] == ("tfpipe", "runs")


def test_a_fresh_machine_copies_what_it_reads_and_only_that(machine, reads):
    run = machine("a")
    with run.lock():
        commit(run, "prepare")
        commit(run, "train", fingerprint(inputs={"prepare": run.record("prepare").output}))
    other = machine("b")
    with other.lock():
        inputs = {"prepare": other.record("prepare").output}
        assert other.why_redo("prepare", fingerprint()) is None
        assert other.why_redo("train", fingerprint(inputs=inputs)) is None
        assert reads == ["prepare/stage.json", "train/stage.json"]
        with other.stage("prune", fingerprint(inputs={"train": other.record("train").output})) as stage:
            assert stage.inputs == {"train": other.path / "train"}
            assert (stage.inputs["train"] / "below" / "vocabulary").read_text() == "a\nb\n"
            assert set(reads[2:]) == {"train/model", "train/below/vocabulary"}
    with run.lock():  # the first machine goes on
        assert run.record("prune") == other.record("prune")
    reads.clear()
    with other.lock():
        assert other.verified("train") == other.path / "train" and reads == []


def test_the_record_on_the_store_is_the_truth(machine, reads):
    run, other = machine("a"), machine("b")
    with run.lock():
        commit(run, content="old")
    with other.lock(), other.stage("train", fingerprint(epochs=2)) as stage:
        (stage.path / "model").write_text("new")
        (stage.path / "added").write_text("more")
    reads.clear()
    with run.lock():
        assert run.why_redo("train", fingerprint()) == "train.epochs: 2 -> 1"
        assert run.record("train") == other.record("train")
        assert not (run.path / "train" / "below" / "vocabulary").exists()  # of the stage as it was
        assert (run.path / "train" / "logs" / "events").exists()
        run.verified("train")
    assert set(reads) == {"train/stage.json", "train/model", "train/added"}


def test_equal_files_are_not_copied_again(machine, reads):
    run, other = machine("a"), machine("b")
    with run.lock():
        commit(run)
    with other.lock():
        commit(other, throughput=9.0)  # the same output, another record
    reads.clear()
    with run.lock():
        run.verified("train")
    assert reads == ["train/stage.json"]


def test_a_file_that_was_lost_or_changed_here_is_copied_again(machine):
    run = machine("a")
    with run.lock():
        commit(run)
    (run.path / "train" / "model").write_text("weightz")
    (run.path / "train" / "below" / "vocabulary").unlink()
    with run.lock():
        assert run.why_redo("train", fingerprint()) is None
        assert (run.verified("train") / "model").read_text() == "weights"
        assert (run.path / "train" / "below" / "vocabulary").read_text() == "a\nb\n"


def test_a_flipped_byte_on_the_store_is_found_before_it_is_read(machine, there, tmp_path):
    run = machine("a")
    with run.lock():
        commit(run)
    (tmp_path / "model").write_text("weightz")
    (there / "train").upload(tmp_path, ["model"])
    other = machine("b")
    inputs = {"train": run.record("train").output}
    found = rf"{there.url}/train/model: its content is not what stage train wrote .*--redo train"
    with other.lock(), pytest.raises(InputError, match=found), other.stage("prune", fingerprint(inputs=inputs)):
        pytest.fail("a stage must not begin with a changed input")
    with other.lock():
        commit(other)  # --redo train
    (there / "train" / "model").remove()
    other = machine("c")
    gone = rf"{there.url}/train/model: .*it is not there.*--redo STAGE"
    with other.lock(), pytest.raises(InputError, match=gone):
        other.verified("train")


def test_a_kill_at_any_write_of_a_commit_is_made_good(machine, there, writes):
    """On the same machine nothing is done again; on another, whatever the store does not hold whole."""
    run = machine("whole")
    with run.lock():
        commit(run)
        run_whole = run.record("train")
    total = len(writes)
    assert total >= 8
    for number in range(total):
        there.remove()
        writes.reset()
        run = machine(f"machine {number}")
        with run.lock():
            run.record("train")
            writes.reset(kill_at=number)
            with pytest.raises(Killed):
                commit(run)
        committed = (run.path / "train" / "stage.json").exists()
        writes.reset()
        other = machine("another")
        shutil.rmtree(other.path, ignore_errors=True)
        with other.lock():
            assert (other.record("train") is None) == ((there / "train" / "stage.json").read_bytes() is None)
            if other.record("train") is not None:
                other.verified("train")
        with run.lock():
            assert (run.why_redo("train", fingerprint()) is None) == committed
            if not committed:
                commit(run)
            assert run.record("train").output == run_whole.output
        with machine("third").lock():
            machine("third").verified("train")


def test_files_without_a_record_are_not_a_commit(machine, there, tmp_path):
    (tmp_path / "model").write_text("weights")
    (there / "train").upload(tmp_path, ["model"])
    run = machine("a")
    with run.lock():
        assert run.record("train") is None and run.why_redo("train", fingerprint()) == "not done yet"
        commit(run)
    (tmp_path / "stage.json").write_text('{"files_written": {"mod')
    (there / "train").upload(tmp_path, ["stage.json"])
    with machine("b").lock():
        assert machine("b").record("train") is None


def commit_here_alone(run, there, published=()):
    with run.lock():
        commit(run, published=published)
    there.remove()


def test_what_was_committed_here_alone_is_copied_at_the_start(machine, there, capsys):
    run = machine("a")
    commit_here_alone(run, there)
    with run.lock():
        assert run.why_redo("train", fingerprint()) is None
    assert "train was committed on this machine alone" in capsys.readouterr().err
    other = machine("b")
    assert other.record("train") == run.record("train") and other.verified("train")


@pytest.mark.parametrize("what", ["changed", "published", "begun elsewhere"])
def test_what_was_committed_here_alone_is_done_again_if_it_may_not_hold(machine, there, what):
    run = machine("a")
    commit_here_alone(run, there, published=["serving/dense/1"] if what == "published" else ())
    if what == "changed":
        (run.path / "train" / "model").write_text("weightz")
    if what == "begun elsewhere":
        train_until_killed(machine("b"), [5], fingerprint(epochs=2))
    with run.lock():
        assert run.why_redo("train", fingerprint()) == "not done yet"
        assert (there / "train" / "stage.json").read_bytes() is None
        if what == "begun elsewhere":
            with run.stage("train", fingerprint(epochs=2)) as stage:
                assert restored(stage) == 5
        else:
            commit(run)
    assert machine("c").verified("train")


def test_doing_a_stage_again_takes_its_commit_back_first(machine, there, writes):
    run = machine("a")
    with run.lock():
        commit(run)
        writes.reset()
        with pytest.raises(Killed), run.stage("train", fingerprint()):
            raise Killed
    assert relative(writes, there) == ["- train/work.json", "- train/stage.json", "- train"]
    assert there.children() == []
    with machine("b").lock():
        assert machine("b").record("train") is None


def test_a_fresh_machine_goes_on_from_the_checkpoint(machine, there):
    train_until_killed(machine("a"), [7, 14])
    assert (there / "train" / "checkpoints").children() == ["latest.json", "step-14"]
    other = machine("b")
    with other.lock(), other.stage("train", fingerprint()) as stage:
        assert restored(stage) == 14
        checkpoint(stage, 21)
        assert (there / "train" / "checkpoints").children() == ["latest.json", "step-21"]
        (stage.path / "model").write_text("weights")
    assert (there / "train").children() == ["model", "stage.json"]
    with machine("a").lock():
        assert machine("a").verified("train")
        assert not (machine("a").path / "train" / "checkpoints" / "latest.json").exists()


def test_another_fingerprint_does_not_go_on_from_it(machine, there):
    train_until_killed(machine("a"), [7])
    other = machine("b")
    with pytest.raises(Killed), other.lock(), other.stage("train", fingerprint(epochs=2)) as stage:
        assert restored(stage) is None and there.children() == []
        raise Killed


def test_other_versions_do_not_go_on_from_it(machine, there, capsys):
    run = machine("a")
    train_until_killed(run, [7])
    work = json.loads((run.path / "train" / "work.json").read_text())
    write_json(run.path / "train" / "work.json", work | {"versions": work["versions"] | {"tensorflow": "2.19.0"}})
    (there / "train").upload(run.path / "train", ["work.json"])
    other = machine("b")
    with pytest.raises(Killed), other.lock(), other.stage("train", fingerprint()) as stage:
        assert restored(stage) is None and there.children() == []
        checkpoint(stage, 2)
        raise Killed
    assert "  train begins anew, as it was begun with tensorflow 2.19.0\n" in capsys.readouterr().err
    assert json.loads((there / "train" / "work.json").read_bytes()) == work


def test_a_kill_at_any_write_of_a_checkpoint_leaves_the_old_or_the_new_one(machine, there, writes):
    run = machine("a")
    with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
        for step in (1, 2):
            writes.reset()
            checkpoint(stage, step, best=step)
        changes = relative(writes, there)
        raise Killed
    prefix = "train/checkpoints"
    assert set(changes[:3]) == {f"{prefix}/step-2/state.data", f"{prefix}/step-2/state.index", f"{prefix}/best-2.index"}
    assert changes[3:] == [f"{prefix}/latest.json", "train/work.json", f"- {prefix}/step-1"]
    writes.reset()
    there.remove()
    for first, number in itertools.product((True, False), range(len(changes) + 1)):
        writes.reset()
        run = machine(f"{first} {number}")
        with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
            if not first:
                checkpoint(stage, 1)
            writes.reset(kill_at=number)
            checkpoint(stage, 2, best=2)
            raise Killed
        writes.reset()
        other = machine(f"another {first} {number}")
        with other.lock(), pytest.raises(Killed), other.stage("train", fingerprint()) as stage:
            step = restored(stage)
            assert step in ((None, 2) if first else (1, 2)), (first, number)
            checkpoint(stage, 3)
            raise Killed
        with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
            assert restored(stage) == 3
            raise Killed
        there.remove()


def test_unchanged_files_of_checkpoints_are_copied_once(machine, there, writes):
    run = machine("a")
    with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
        checkpoint(stage, 1, best=1)
        writes.reset()
        checkpoint(stage, 2)
        raise Killed
    assert f"{there.url}/train/checkpoints/best-1.index" not in writes
    assert "best-1.index" in (there / "train" / "checkpoints").children()


def test_the_same_machine_copies_no_checkpoint_back(machine, reads):
    train_until_killed(machine("a"), [7])
    reads.clear()
    run = machine("a")
    with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
        assert restored(stage) == 7 and reads == []
        raise Killed


def test_work_that_was_never_kept_goes_on_on_its_machine(machine):
    run = machine("a")
    with run.lock(), pytest.raises(Killed), run.stage("prepare", fingerprint()) as stage:
        stage.checkpoints.mkdir()
        (stage.checkpoints / "tables").write_text("1")
        raise Killed
    run = machine("a")
    with run.lock(), run.stage("prepare", fingerprint()) as stage:
        assert (stage.checkpoints / "tables").read_text() == "1"


def test_keeping_is_nothing_for_a_local_run(tmp_path, writes):
    run = RunDirectory(tmp_path / "run")
    with run.lock(), pytest.raises(Killed), run.stage("train", fingerprint()) as stage:
        checkpoint(stage, 1)
        raise Killed
    assert writes == [] and (run.path / "train" / "checkpoints" / "latest.json").exists()


def publish(run, content, number=None):
    """Does a stage that publishes the next version, as the stage of that name does."""
    with run.stage("publish", fingerprint()) as stage:
        variant = run.path / "serving" / "dense"
        versions = [int(path.name) for path in variant.glob("*")] if variant.exists() else []
        newest = variant / str(max(versions, default=0))
        if not versions or (newest / "saved_model.pb").read_text() != content:
            newest = variant / str(max(versions, default=0) + 1)
            (newest / "variables").mkdir(parents=True)
            (newest / "saved_model.pb").write_text(content)
            (newest / "variables" / "variables.index").write_text(content)
        (run.path / "serving" / "models.config").write_text(content)
        (stage.path / "published.json").write_text("{}")
        stage.published[f"serving/dense/{newest.name}"] = Published(sha256=content, size_bytes=2 * len(content))
        stage.published["serving/models.config"] = Published(sha256=None, size_bytes=None)
    return newest.name


def test_versions_are_published_before_the_record_and_the_model_last(machine, there, writes, capsys):
    run = machine("a")
    with run.lock():
        assert publish(run, "first") == "1"
    written = [change for change in relative(writes, there) if not change.startswith("- ")]
    partial = "serving/dense/.1.partial"
    assert written[1:] == [
        *(f"{partial}/{name}" for name in ("variables/variables.index", "saved_model.pb")),
        *(f"serving/dense/1/{name}" for name in ("variables/variables.index", "saved_model.pb")),
        "serving/models.config",
        "publish/stage.json",
    ]
    assert (
        written[0] == "publish/published.json" and f"published {there.url}/serving/dense/1" in capsys.readouterr().err
    )
    other = machine("b")  # which must know the numbers that are taken, and what is there already
    with other.lock():
        assert publish(other, "first") == "1"
        assert publish(other, "second") == "2"
    assert (there / "serving" / "dense").children() == ["1", "2"]
    assert (there / "serving" / "dense" / 1 / "saved_model.pb").read_bytes() == b"first"
    assert (there / "serving" / "models.config").read_bytes() == b"second"


def test_a_kill_while_publishing_ends_with_one_whole_version(machine, there, writes):
    run = machine("whole")
    with run.lock():
        publish(run, "first")
    total = len(writes)
    for number, same_machine in itertools.product(range(total), (True, False)):
        writes.reset()
        there.remove()
        run = machine(f"{number} {same_machine}")
        with run.lock():
            run.record("publish")
            writes.reset(kill_at=number)
            with pytest.raises(Killed):
                publish(run, "first")
        writes.reset()
        run = run if same_machine else machine(f"{number} another")
        with run.lock():
            if run.why_redo("publish", fingerprint()) is not None:
                publish(run, "first")
        versions = there / "serving" / "dense"
        assert versions.children() == ["1"]
        assert (versions / 1).files() == {"saved_model.pb": 5, "variables/variables.index": 5}
        assert run.record("publish").published["serving/dense/1"].sha256 == "first"


def test_a_version_of_another_machine_takes_the_place_of_ours(machine, there):
    run = machine("a")
    with run.lock():
        publish(run, "ours")
    there.remove()
    other = machine("b")
    with other.lock():
        publish(other, "theirs")
    with run.lock():
        assert run.why_redo("publish", fingerprint(epochs=2)) is not None
        assert publish(run, "ours") == "2"
    assert (there / "serving" / "dense" / 1 / "saved_model.pb").read_bytes() == b"theirs"
    assert (there / "serving" / "dense" / 2 / "saved_model.pb").read_bytes() == b"ours"


def test_a_reader_needs_no_lock_and_writes_nothing(machine, there, writes):
    chief, worker = machine("a"), machine("b")
    with chief.lock():
        assert worker.record("prepare") is None
        commit(chief, "prepare")
        writes.reset()
        assert worker.record("prepare") == chief.record("prepare")
        assert (worker.verified("prepare") / "model").read_text() == "weights"
        assert writes == []
        commit(chief, "prepare", fingerprint(epochs=2), content="other")
        writes.reset()
        assert (worker.verified("prepare") / "model").read_text() == "other"  # each time as it is there
        with pytest.raises(Killed), chief.stage("train", fingerprint()):
            assert worker.record("train") is None
            raise Killed
    assert not [change for change in writes if "prepare" in change]
    with pytest.raises(AssertionError, match="under its lock"), worker.stage("train", fingerprint()):
        pytest.fail("a reader must not begin a stage")


def test_a_reader_beside_its_chief_changes_nothing(machine):
    """Two workers on one machine share its directory."""
    chief, worker = machine("a"), machine("a")
    with chief.lock():
        commit(chief, "prepare")
        before = {path: path.stat().st_mtime_ns for path in chief.path.rglob("*")}
        assert worker.path == chief.path and worker.verified("prepare") == chief.path / "prepare"
        assert {path: path.stat().st_mtime_ns for path in chief.path.rglob("*")} == before
        with pytest.raises(InputError, match="in use by another run"), worker.lock():
            pytest.fail("one run is held twice")


def test_a_published_version_is_brought_here_without_its_run(machine, there):
    run = machine("a")
    with run.lock():
        publish(run, "first")
        publish(run, "second")
    reader = machine("b")
    assert reader.committed("publish").published["serving/dense/2"].sha256 == "second"
    assert (reader.take("serving/dense/2") / "saved_model.pb").read_text() == "second"
    assert [path.relative_to(reader.path).parts[0] for path in reader.path.iterdir()] == ["serving"]
    assert [path.name for path in (reader.path / "serving" / "dense").iterdir()] == ["2"]


def test_a_stage_of_another_run_is_taken_over_to_the_store(machine, there, tmp_path):
    local, run = RunDirectory(tmp_path / "local"), machine("a")
    commit(local)
    with run.lock():
        assert run.adopt("train", fingerprint(), local)
    assert machine("b").verified("train") and machine("b").record("train") == local.record("train")


def test_a_store_that_refuses_ends_in_one_line_and_loses_nothing(machine, there, monkeypatch):
    run = machine("a")
    with run.lock():
        commit(run)
        (run.path / "config.yaml").write_text("name: imdb\n")

    def refuse(source, target):
        raise tf.errors.PermissionDeniedError(None, None, "Anonymous caller does not have storage.objects.create")

    monkeypatch.setattr(remote, "copy_file", refuse)
    with run.lock(), pytest.raises(InputError, match=r"config.yaml: Anonymous caller .*; log in with"):
        commit(run)
    assert machine("b").record("train") is None if not there.exists() else (there / "train" / "stage.json").exists()


def test_places_that_cannot_be_used_are_input_errors(machine, monkeypatch, there):
    with pytest.raises(InputError, match=r"sweep --run-dir gs://bucket/sweep: .*local directory"):
        cli.sweep(Path("config.yaml"), ["seed=1,2"], "gs://bucket/sweep")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    with pytest.raises(InputError, match=r"can't be written .*set XDG_CACHE_HOME"), RunDirectory(there.url).lock():
        pytest.fail("not a place for a run")
    machine("a")
    with pytest.raises(InputError, match="are patterns there"):
        RunDirectory("gs://bucket/run-*")
    run = RunDirectory("nowhere://bucket/run")
    with run.lock(), pytest.raises(InputError, match=r"nowhere://bucket/run/train/stage.json: .*starts with gs://"):
        run.record("train")
    names = {RunDirectory(url).path.name for url in ("gs://a/run", "gs://b/run", "gs://a/run/", "gs://a")}
    assert len(names) == 3 and {name.rpartition("-")[0] for name in names} == {"run", "a"}
