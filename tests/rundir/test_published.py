"""Which published version answers for a run: the one that `publish` published for the stages that are there now."""

import itertools
import random
import shutil

import pytest

from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory, write_json
from tfpipe.rundir import remote
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import Fingerprint
from tfpipe.rundir.published import find_saved_model
from tfpipe.rundir.record import Published
from tfpipe.rundir.remote import Remote

pytestmark = pytest.mark.usefixtures("ram_replaces")

_numbers = itertools.count()
INPUTS = {
    "prepare": (),
    "train": ("prepare",),
    "export": ("prepare", "train"),
    "publish": ("prepare", "train", "export"),
}
VARIANTS = ("dense", "int8")


def fingerprint(run, name, value):
    return Fingerprint({"seed": value}, {}, {other: run.record(other).output for other in INPUTS[name]})


def do(run, name, value, publish=VARIANTS):
    """Does a stage of made-up content; `publish` publishes what `export` holds, as a new version."""
    with run.lock(), run.stage(name, fingerprint(run, name, value)) as stage:
        (stage.path / "output").write_text(f"{name} {value}")
        if name != "publish":
            return
        for variant in publish:
            above = run.path / "serving" / variant
            version = above / str(1 + max((int(path.name) for path in above.glob("*")), default=0))
            (version / "variables").mkdir(parents=True)
            (version / "saved_model.pb").write_text(f"{variant} {(stage.inputs['export'] / 'output').read_text()}")
            (version / "variables" / "data").write_text(str(value))
            name = str(version.relative_to(run.path))
            size = sum(remote.files_below(version).values())
            stage.published[name] = Published(sha256=sha256_of_directory(version), size_bytes=size)
        (run.path / "serving" / "models.config").write_text("config")
        stage.published["serving/models.config"] = Published(sha256=None, size_bytes=None)


def whole(run):
    for name in INPUTS:
        do(run, name, 0)
    return run


@pytest.fixture(params=["local", "store"])
def machine(request, tmp_path, monkeypatch):
    """A function that opens one run as a machine does, and where the run lies: a path or an address."""
    where = tmp_path / "run" if request.param == "local" else f"ram://test-published-{next(_numbers)}/run"
    monkeypatch.setattr(remote, "PAUSES_S", ())

    def opened(name="a"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return RunDirectory(where)

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: tiny\n")
    if request.param == "store":
        Remote(where).upload(tmp_path / "run", ["config.yaml"])
    return opened, where


def lies(where, name):
    return Remote(f"{where}/{name}") if isinstance(where, str) else where / name


def remove(place):
    place.remove() if isinstance(place, Remote) else shutil.rmtree(place) if place.is_dir() else place.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_a_run_answers_with_what_was_published_for_its_present_stages(machine, seed):
    """Whatever was done, done again, failed or removed before; the oracle is a copy of what the last good end saw."""
    opened, where = machine
    choose, stages, published = random.Random(seed), {}, None
    for step in range(60):
        run, name = opened(), choose.choice([*INPUTS, *["export", "publish"] * 3, "remove"])
        if name == "remove":
            if published and choose.random() < 0.5:
                gone = choose.choice(list(published[1]))
                if published[1][gone] is not None:
                    remove(lies(where, gone))
                published[1][gone] = None
        elif all(other in stages for other in INPUTS[name]):
            value, fails = choose.randrange(2), choose.random() < 0.25
            stages.pop(name, None)
            if fails:
                with pytest.raises(ZeroDivisionError), run.lock(), run.stage(name, fingerprint(run, name, value)):
                    raise ZeroDivisionError
                published = None if name == "publish" else published
            else:
                do(run, name, value, publish=choose.choice([VARIANTS, VARIANTS[:1]]))
                stages[name] = f"{name} {value}"
                if name == "publish":
                    versions = [each for each in run.record("publish").published if not each.endswith(".config")]
                    published = (dict(stages), {each: f"{each.split('/')[1]} {stages['export']}" for each in versions})
        holds = published and all(stages.get(other) == published[0][other] for other in INPUTS["publish"])
        opened("b")
        for variant in VARIANTS:
            expected = published[1] if holds else {}
            content = next((text for each, text in expected.items() if each.split("/")[1] == variant), None)
            if content is None:
                with pytest.raises(InputError, match=str(where)) as error:
                    find_saved_model(where, variant)
                assert len(str(error.value).splitlines()) == 1
            else:
                assert (find_saved_model(where, variant) / "saved_model.pb").read_text() == content, step


def test_the_reason_is_told_with_what_is_there_and_the_fix(machine):
    opened, where = machine
    with pytest.raises(InputError, match=r"no published variant dense; nothing is published yet: finish `tfpipe run`"):
        find_saved_model(where, "dense")
    run = whole(opened())
    do(run, "publish", 1, publish=["dense"])
    with pytest.raises(
        InputError, match=r"did not publish int8, what is in serving/int8/ is older; it published dense"
    ):
        find_saved_model(where, "int8")
    do(run, "train", 1)
    held = r"serving/ holds older versions \(dense/2, int8/1\); finish `tfpipe run`, or give the directory of a version"
    with pytest.raises(InputError, match=rf"train changed since the last run published; {held}"):
        find_saved_model(where, "dense")
    do(run, "train", 0)  # the same output as before
    assert find_saved_model(where, "dense").name == "2"
    with pytest.raises(ZeroDivisionError), run.lock(), run.stage("publish", fingerprint(run, "publish", 2)):
        raise ZeroDivisionError
    with pytest.raises(InputError, match=rf"the last run published nothing; {held}"):
        find_saved_model(where, "dense")
    version = find_saved_model(
        f"{where}/serving/dense/1" if isinstance(where, str) else lies(where, "serving/dense/1"), ""
    )
    assert (version / "saved_model.pb").read_text() == "dense export 0"


def test_a_version_that_no_record_names_is_not_taken(machine, tmp_path):
    opened, where = machine
    run = whole(opened())
    shutil.copytree(run.path / "serving" / "dense" / "1", tmp_path / "made" / "serving" / "dense" / "7")
    (tmp_path / "made" / "serving" / "dense" / "7" / "saved_model.pb").write_text("of elsewhere")
    if isinstance(where, str):
        Remote(where).upload(tmp_path / "made", list(remote.files_below(tmp_path / "made")))
    else:
        shutil.copytree(tmp_path / "made", where, dirs_exist_ok=True)
    assert find_saved_model(where, "dense").name == "1"


def test_a_tree_without_its_run_gives_its_newest_version(machine):
    opened, where = machine
    run = whole(opened())
    do(run, "publish", 1)
    for name in (*INPUTS, "config.yaml"):
        remove(lies(where, name))
    opened("b")
    assert find_saved_model(where, "dense").name == "2"
    with pytest.raises(InputError, match="no published variant pruned; published are dense, int8"):
        find_saved_model(where, "pruned")


@pytest.mark.parametrize("left", ["train/stage.json", "train/work.json"])
def test_a_directory_with_any_stage_is_a_run(machine, left):
    opened, where = machine
    whole(opened())
    if left.endswith("work.json"):
        with pytest.raises(ZeroDivisionError):
            work(opened())
    for name in INPUTS.keys() - {"train"} | {"config.yaml"}:
        remove(lies(where, name))
    assert lies(where, left).exists()
    with pytest.raises(InputError, match="the last run published nothing"):
        find_saved_model(where, "dense")


def work(run):
    with run.lock(), run.stage("train", fingerprint(run, "train", 5)) as stage:
        stage.checkpoints.mkdir()
        write_json(stage.checkpoints / "latest.json", {"step": 1})
        stage.keep("latest.json")
        raise ZeroDivisionError


def test_what_was_published_and_is_gone_is_published_again(machine):
    opened, where = machine
    run = whole(opened())
    claimed = ["serving/dense/1", "serving/int8/1/saved_model.pb", "serving/dense/1/variables/data", "serving"]
    for gone in claimed:
        done = fingerprint(run, "publish", 0)
        with run.lock():
            assert run.why_redo("publish", done) is None
        remove(lies(where, gone))
        with run.lock():
            reason = run.why_redo("publish", done)
        named = "serving/dense/1" if gone == "serving" else "/".join(gone.split("/")[:3])
        assert reason == f"{named} is missing or has another size"
        remove(lies(where, "serving")) if gone != "serving" else None
        shutil.rmtree(run.path / "serving", ignore_errors=True)
        run = opened()
        do(run, "publish", 0)
    remove(lies(where, "serving/models.config"))
    with run.lock():
        assert run.why_redo("publish", fingerprint(run, "publish", 0)) == "serving/models.config is missing"


def test_a_version_of_another_size_is_published_again(tmp_path):
    run = whole(RunDirectory(tmp_path))
    done = fingerprint(run, "publish", 0)
    (tmp_path / "serving" / "models.config").write_text("a model of my own")  # made to be changed
    assert run.why_redo("publish", done) is None
    (tmp_path / "serving" / "dense" / "1" / "variables" / "data").write_text("longer")
    assert run.why_redo("publish", done) == "serving/dense/1 is missing or has another size"


def test_a_file_that_the_store_has_lost_is_made_again(machine):
    opened, where = machine
    run = whole(opened())
    done = fingerprint(run, "export", 0)
    remove(lies(where, "export/output"))
    with run.lock():
        assert run.why_redo("export", done).startswith("output is missing")
