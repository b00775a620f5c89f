"""Files on a store that TensorFlow can open, such as `gs://`: listed, copied, removed.

Enters: local files, or the address of such a store. Leaves: copies, on the other side. An operation that fails is tried
again where that can help, else the error is one line. A store writes a file as a whole or not at all (`gs://` does).
Nothing larger is atomic there, so callers decide what is written last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tfpipe.console import progress_bar, say
from tfpipe.errors import InputError
from tfpipe.files import path_inside

T = TypeVar("T")

COPIES_AT_ONCE = 16
PAUSES_S = (1, 4, 16)  # after which a failed try is repeated; TensorFlow itself has tried ten times before on gs://
SHOWN_BYTES = 64 * 10**6  # from here on a copy shows its progress
SMALL_BYTES = 10**6  # up to here a file is compared by its content


@dataclass(frozen=True)
class Remote:
    """A file or a directory on a store; `/` leads below it, as with a path."""

    url: str

    def __truediv__(self, name: str | int) -> Remote:
        return Remote(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        """Tells whether a file or a directory is there."""
        return asking(self.url, _gfile().exists, self.url)

    def read_bytes(self) -> bytes | None:
        """Reads the content of a file; None where there is none."""

        def read() -> bytes:
            with _gfile().GFile(self.url, "rb") as file:
                # To its end: without a number, read() asks for a size that may be a few seconds old on gs://.
                return b"".join(iter(lambda: file.read(SMALL_BYTES), b""))

        return asking(self.url, read, may_be_missing=True)

    def children(self) -> list[str]:
        """Lists the names in a directory, sorted; empty where there is none.

        It asks by pattern: for TensorFlow's functions that list a directory, a store that fails looks empty.
        """
        found = asking(self.url, _gfile().glob, f"{self.url}/*", may_be_missing=True) or []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found} - {"", ".", ".."})

    def names_below(self) -> list[str]:
        """Lists the relative names of the files below, at any depth, and of empty directories, sorted."""
        found: set[str] = set()
        pattern = f"{self.url}/*"
        while level := asking(self.url, _gfile().glob, pattern, may_be_missing=True):
            found.update(path.rstrip("/") for path in level)
            pattern += "/*"
        leaves = found - {path.rpartition("/")[0] for path in found}
        return [path[len(self.url) + 1 :] for path in sorted(leaves)]

    def files(self) -> dict[str, int]:
        """Lists the files below, at any depth: relative name -> size in bytes."""
        about = {name: asking(f"{self}/{name}", _gfile().stat, f"{self}/{name}") for name in self.names_below()}
        return {name: each.length for name, each in about.items() if not each.is_directory}

    def holds(self, directory: Path) -> bool:
        """Tells whether the same files are in a local directory: by name and size, small ones by content.

        Small files (an index, a marker or a fingerprint) change with the large ones beside them.
        """
        files = self.files()
        return files == files_below(directory) and all(
            (self / name).read_bytes() == (directory / name).read_bytes()
            for name, size in files.items()
            if size <= SMALL_BYTES
        )

    def upload(self, directory: Path, names: list[str]) -> None:
        """Copies files of a local directory here, in no particular order."""

        def copy(name: str) -> None:
            target = self / name
            target.make_parent()
            asking(target.url, copy_file, str(directory / name), target.url)

        sizes = {name: (directory / name).stat().st_size for name in names}
        _each(copy, sizes, f"copying to {self.url}")

    def download(self, directory: Path, sizes: Mapping[str, int]) -> None:
        """Copies files from here to a local directory, each as a whole.

        Args:
          directory: of the copies; made if it is missing.
          sizes: relative names -> sizes in bytes, for the progress shown.

        Raises:
          InputError: a name that leads out of the directory; a store has names such as `../x`.
        """

        def copy(name: str) -> None:
            source, target = self / name, path_inside(directory, name, self.url)
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")  # others may read the same run
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                asking(source.url, copy_file, source.url, str(partial))
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)

        _each(copy, sizes, f"copying from {self.url}")

    def replace(self, directory: Path) -> None:
        """Copies files until a local directory holds the files that are here, and no other."""
        partial = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.download(partial, self.files())
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)

    def publish(self, directory: Path, last: str) -> None:
        """Copies a local directory here for readers that poll: first beside its place, then moved into it.

        TF Serving loads a version as soon as it has one file, and gives up after five minutes. On `gs://`, the store
        itself moves files, a moment for each.

        Args:
          directory: the version.
          last: the file that is moved last. Where it exists, nothing is done: a whole version is not overwritten.
        """
        parent, _, name = self.url.rpartition("/")
        partial = Remote(parent) / f".{name}.partial"
        partial.remove()
        if (self / last).exists():
            return
        self.remove()
        names = sorted(files_below(directory), key=lambda name: name == last)
        partial.upload(directory, names)
        for name in names:
            source, target = partial / name, self / name
            target.make_parent()
            asking(target.url, move_file, source.url, target.url)
        partial.remove()
        say(f"  published {self.url}")

    def remove(self) -> None:
        """Removes a file, or a directory with all that is in it; a missing one is no error."""
        gfile = _gfile()
        remove = gfile.rmtree if gfile.isdir(self.url) else gfile.remove
        asking(self.url, remove, self.url, may_be_missing=True)

    def make_parent(self) -> None:
        """Makes the directory of a file, where the store has any: on `gs://`, directories are only part of the name."""
        if not self.url.startswith("gs://"):
            parent = self.url.rpartition("/")[0]
            asking(parent, _gfile().makedirs, parent)


def files_below(directory: Path) -> dict[str, int]:
    """Lists the files below a local directory: relative name -> size in bytes, sorted."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in found}


def copy_file(source: str, target: str) -> None:
    """Copies one file; either side may be local."""
    _gfile().copy(source, target, overwrite=True)


def move_file(source: str, target: str) -> None:
    """Moves one file within a store."""
    _gfile().rename(source, target, overwrite=True)


def asking(url: str, ask: Callable[..., T], *arguments: str, may_be_missing: bool = False) -> T | None:
    """Asks a store, and asks again where the failure may pass.

    Args:
      url: of the file or directory.
      ask: a function that raises TensorFlow's errors, and its arguments.
      may_be_missing: whether the file may be missing: the answer is then None.

    Raises:
      InputError: the store refuses, or can't be reached.
    """
    import tensorflow as tf

    # A name that can't be resolved comes as a failed precondition.
    passing = (
        tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
    )  # fmt: skip
    for pause_s in (*PAUSES_S, None):
        try:
            return ask(*arguments)
        except tf.errors.ResourceExhaustedError:
            raise  # a local disk that is full: the command line says so
        except tf.errors.OpError as error:
            if may_be_missing and isinstance(error, tf.errors.NotFoundError):
                return None
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if pause_s is None or not isinstance(error, passing):
                raise InputError(f"{url}: {reason}; {_what_to_do(url, error)}") from error
            say(f"  {url}: {reason}; trying again in {pause_s} s")
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _what_to_do(url: str, error: Exception) -> str:
    import tensorflow as tf

    if isinstance(error, tf.errors.PermissionDeniedError | tf.errors.UnauthenticatedError):
        return (
            "log in with gcloud auth application-default login, or give the account that is used here the role "
            "Storage Object Admin on the bucket"
        )
    if isinstance(error, tf.errors.NotFoundError):
        return "it is not there: check the address, make the bucket, or do again what wrote the file (--redo STAGE)"
    if isinstance(error, tf.errors.UnimplementedError):
        return "give an address that starts with gs://, or a local directory"
    return "check address and network and run the same command again, nothing committed is lost"


def _each(copy: Callable[[str], None], sizes: Mapping[str, int], description: str) -> None:
    """Copies files side by side; progress is shown in megabytes where it takes long."""
    total, done = sum(sizes.values()), 0
    bar_or_none = progress_bar(f"{description} (MB)", round(total / 1e6)) if total >= SHOWN_BYTES else None
    with bar_or_none or contextlib.nullcontext() as bar, ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        copies = {pool.submit(copy, name): size for name, size in sizes.items()}
        try:
            for finished in as_completed(copies):
                finished.result()
                before, done = done, done + copies[finished]
                if bar is not None:
                    bar.advance(round(done / 1e6) - round(before / 1e6))
        except BaseException:  # a signal as well: what has not begun is left
            pool.shutdown(cancel_futures=True)
            raise


def _gfile():
    import tensorflow as tf

    return tf.io.gfile
