"""Blocks worked on by processes of this machine, or by Beam on others (`beam.py`).

Enters: files, or the names of blocks, and a picklable function that gives a function of one of them. Leaves: the
results, in the order of the blocks. Little data is done in this process: starting others would take longer.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import Block
from tfpipe.data.sources import SourceFile
from tfpipe.errors import InputError

ALONE_BLOCKS = 32  # as many blocks, 64 MB, take about as long as starting processes
_AHEAD = 2  # blocks that wait for each process

_function: Callable[[Any], Any] | None = None


def map_blocks(
    work: Callable[[], Callable[[Block], Any]],
    files: list[SourceFile],
    config: Config,
    scratch: Path,
    *,
    done: frozenset[str] = frozenset(),
    module: str | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yields the name of each block and the function's result for it, in order.

    Args:
      work: called once in each process, gives the function; picklable.
      files: what the blocks are cut from.
      config: `data.runner`, `data.workers`.
      scratch: directory for Beam's results.
      done: names of blocks to leave out.
      module: what takes long to import for this work, such as TensorFlow: imported once, by a process that the others
        are forked from, so that they share its memory as well.

    Raises:
      InputError: a process was ended from outside, such as for want of memory.
    """
    if config.data.runner != "local":
        from tfpipe.data.runners import beam  # an extra

        yield from beam.map_blocks(work, files, config, scratch, done)
        return
    blocks = (block for file in files for block in readers.blocks(file, config.data) if block.name not in done)
    yield from in_processes(work, ((block.name, block) for block in blocks), config.data.workers, module)


def in_processes(
    work: Callable[[], Callable[[Any], Any]],
    items: Iterable[tuple[str, Any]],
    workers: int | None,
    module: str | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yields each item's name and the function's result for it, in order.

    Args:
      work: called once in each process, gives the function; picklable.
      items: of each block a name, and what the function is given.
      workers: processes; None: one per processor, or this one alone for few blocks.
      module: what takes long to import for this work: see `map_blocks`.

    Raises:
      InputError: a process was ended from outside, such as for want of memory.
    """
    items = iter(items)
    first = list(itertools.islice(items, ALONE_BLOCKS + 1))
    if workers is None:
        workers = 1 if len(first) <= ALONE_BLOCKS else len(os.sched_getaffinity(0))
    if workers == 1:
        function = work()
        for name, item in itertools.chain(first, items):
            yield name, function(item)
        return
    context = multiprocessing.get_context("spawn" if module is None else "forkserver")
    if module is not None:
        context.set_forkserver_preload([module])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(work,))
    waiting: deque = deque()
    try:
        for name, item in itertools.chain(first, items):
            waiting.append((name, pool.submit(_call, item)))
            if len(waiting) > _AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for name, future in waiting:
            yield name, future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepared data was ended from outside, most likely for want of memory; give the same "
            "command again, it goes on from there, with fewer processes: --set data.workers=1"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start(work: Callable[[], Callable[[Any], Any]]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _function = work()


def _follow_parent() -> None:
    """Ends this process with the one that started it, however that ended: a pool's processes would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
