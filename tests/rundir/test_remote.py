"""`ram://` stands in for `gs://`: the same interface of TensorFlow, in this process."""

import errno
import itertools
import os
import threading

import pytest
import tensorflow as tf

from tfpipe.errors import InputError
from tfpipe.rundir import remote
from tfpipe.rundir.remote import Remote, files_below

_numbers = itertools.count()

pytestmark = pytest.mark.usefixtures("ram_replaces")


@pytest.fixture
def store(monkeypatch):
    """An empty directory on a store; a failed try is repeated at once."""
    monkeypatch.setattr(remote, "PAUSES_S", (0, 0, 0))
    return Remote(f"ram://test-remote-{next(_numbers)}/directory")


@pytest.fixture
def local(tmp_path):
    """A local directory with files at the top and below."""
    directory = tmp_path / "local"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph\xff")
    (directory / "variables" / "variables.index").write_bytes(b"in\r\ndex")
    (directory / "variables" / "variables.data").write_bytes(os.urandom(3 * remote.SMALL_BYTES))
    return directory


NAMES = ["saved_model.pb", "variables/variables.data", "variables/variables.index"]


def failing(monkeypatch, error, times=10**6):
    """Makes the copying of a file fail that many times; returns the list of what was tried."""
    tried, copy = [], remote.copy_file

    def copy_or_fail(source, target):
        tried.append(target)
        if len(tried) <= times:
            raise error
        copy(source, target)

    monkeypatch.setattr(remote, "copy_file", copy_or_fail)
    return tried


def test_there_and_back(store, local, tmp_path):
    assert store.files() == {} and store.children() == [] and not store.exists()
    store.upload(local, NAMES)
    assert store.files() == files_below(local) and list(store.files()) == NAMES
    assert store.children() == ["saved_model.pb", "variables"]
    assert (store / "variables").children() == ["variables.data", "variables.index"]
    assert (store / "variables" / "variables.index").read_bytes() == b"in\r\ndex"
    assert (store / "nothing").read_bytes() is None and (store / "variables" / "variables.index").exists()
    back = tmp_path / "back"
    store.download(back, store.files())
    assert {name: (back / name).read_bytes() for name in NAMES} == {name: (local / name).read_bytes() for name in NAMES}
    assert store.holds(back) and files_below(back) == files_below(local)
    (store / "variables").remove()
    (store / "nothing").remove()
    assert list(store.files()) == ["saved_model.pb"]
    store.remove()
    assert store.files() == {} and not store.holds(back)


def test_replacing_leaves_nothing_else(store, local, tmp_path):
    store.upload(local, NAMES)
    target = tmp_path / "checkpoints"
    (target / "step-1").mkdir(parents=True)
    (target / "step-1" / "state").write_text("old")
    store.replace(target)
    assert files_below(target) == files_below(local)
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "local"]


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_that_differs_is_told(store, local, name):
    store.upload(local, NAMES)
    content = (local / name).read_bytes()
    (local / name).write_bytes(content + b".")
    assert not store.holds(local)
    (local / name).write_bytes(b"?" + content[1:])
    assert store.holds(local) == (len(content) > remote.SMALL_BYTES)  # the index beside it would differ
    (local / name).unlink()
    assert not store.holds(local)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (tf.errors.PermissionDeniedError, "gcloud auth application-default login.*Storage Object Admin"),
        (tf.errors.UnauthenticatedError, "gcloud auth application-default login"),
        (tf.errors.NotFoundError, "make the bucket"),
        (tf.errors.UnimplementedError, "starts with gs://"),
        (tf.errors.InvalidArgumentError, "check address and network"),
    ],
)
def test_a_refusal_is_one_line_at_once(store, local, monkeypatch, error, said):
    tried = failing(monkeypatch, error(None, None, "HTTP response\n code 40x"))
    with pytest.raises(InputError, match=rf"ram://.*/saved_model.pb: HTTP response code 40x; .*{said}") as caught:
        store.upload(local, ["saved_model.pb"])
    assert "\n" not in str(caught.value) and len(tried) == 1


PASSING = [
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
]


@pytest.mark.parametrize("error", PASSING)
def test_what_may_pass_is_tried_again(store, local, monkeypatch, capsys, error):
    tried = failing(monkeypatch, error(None, None, "HTTP response code 503"), times=3)
    store.upload(local, ["saved_model.pb"])
    assert len(tried) == 4 and store.files() == {"saved_model.pb": 6}
    assert capsys.readouterr().err.count("HTTP response code 503; trying again in 0 s") == 3


def test_what_does_not_pass_ends_in_one_line(store, local, monkeypatch):
    tried = failing(monkeypatch, tf.errors.UnavailableError(None, None, ""))
    with pytest.raises(InputError, match=r"saved_model.pb: UnavailableError; .*run the same command again"):
        store.upload(local, ["saved_model.pb"])
    assert len(tried) == 4


def test_after_a_failure_no_more_copies_begin(store, tmp_path, monkeypatch):
    names = [f"part-{number}" for number in range(200)]
    for name in names:
        (tmp_path / name).write_text(name)
    tried = failing(monkeypatch, tf.errors.PermissionDeniedError(None, None, "no"))
    with pytest.raises(InputError):
        store.upload(tmp_path, names)
    assert len(tried) < 200


def test_a_full_disk_is_left_to_the_command_line(store, local, monkeypatch):
    full = tf.errors.ResourceExhaustedError(None, None, os.strerror(errno.ENOSPC))
    failing(monkeypatch, full)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
        store.download(local, {"saved_model.pb": 6})


def test_a_store_that_is_not_known_is_an_input_error():
    with pytest.raises(InputError, match=r"nowhere://bucket/a: .*'nowhere' not implemented.*starts with gs://"):
        (Remote("nowhere://bucket") / "a").read_bytes()


def test_a_download_that_fails_leaves_the_old_file(store, local, monkeypatch):
    store.upload(local, NAMES)
    (local / "saved_model.pb").write_text("old")

    def copy_half(source, target):
        with open(target, "w") as file:
            file.write("hal")
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "copy_file", copy_half)
    with pytest.raises(KeyboardInterrupt):
        store.download(local, {"saved_model.pb": 6})
    assert (local / "saved_model.pb").read_text() == "old" and list(files_below(local)) == NAMES


@pytest.fixture
def moved(monkeypatch):
    """The targets of moves, in order."""
    found, move = [], remote.move_file

    def recorded(source, target):
        found.append(target)
        move(source, target)

    monkeypatch.setattr(remote, "move_file", recorded)
    return found


def test_publishing_moves_the_model_last_and_never_overwrites(store, local, moved):
    version = store / "serving" / 1
    version.publish(local, last="saved_model.pb")
    assert moved == [f"{version}/{name}" for name in (*NAMES[1:], NAMES[0])]
    assert version.holds(local) and (store / "serving").children() == ["1"]
    (local / "saved_model.pb").write_text("other")
    version.publish(local, last="saved_model.pb")
    assert len(moved) == 3 and (version / "saved_model.pb").read_bytes() == b"graph\xff"


@pytest.mark.parametrize("step", ["copy_file", "move_file"])
@pytest.mark.parametrize("number", range(3))
def test_a_kill_while_publishing_shows_no_model(store, local, monkeypatch, step, number):
    version, done, lock = store / "serving" / 1, itertools.count(), threading.Lock()
    whole = getattr(remote, step)

    def killed(source, target):
        with lock:
            if next(done) >= number:
                raise KeyboardInterrupt
        whole(source, target)

    monkeypatch.setattr(remote, step, killed)
    with pytest.raises(KeyboardInterrupt):
        version.publish(local, last="saved_model.pb")
    assert not (version / "saved_model.pb").exists()
    assert step == "move_file" or (store / "serving").children() in ([], [".1.partial"])
    (local / "variables" / "variables.index").rename(local / "variables" / "renamed")  # another model meanwhile
    monkeypatch.setattr(remote, step, whole)
    version.publish(local, last="saved_model.pb")
    assert version.holds(local) and (store / "serving").children() == ["1"]


def test_long_copies_show_their_progress(store, local, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, description, total):
            shown.append((description, total))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def advance(self, count):
            shown.append(count)

    monkeypatch.setattr(remote, "progress_bar", Bar)
    store.upload(local, NAMES)
    assert shown == []
    monkeypatch.setattr(remote, "SHOWN_BYTES", 10**6)
    store.upload(local, NAMES)
    assert shown[0] == (f"copying to {store} (MB)", 3) and sum(shown[1:]) == 3
