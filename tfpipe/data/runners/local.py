"""The runner of one machine: blocks and tables worked on by its processes, or by this one alone.

Enters: files or names of blocks, and a class whose instances are functions of one of them. Leaves: the results, in the
order of the blocks. This process works on small data itself: starting others would take longer.
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
from dataclasses import dataclass
from typing import Any

import pyarrow

from tfpipe.config.data import Data
from tfpipe.data import readers
from tfpipe.data.block import Block
from tfpipe.data.files.source_file import SourceFile
from tfpipe.errors import InputError

ALONE_BLOCKS = 32  # as many blocks, 64 MB, take about as long as starting processes
_AHEAD = 2  # blocks that wait for each process

Store = Callable[[str, Any], Any]
"""a block's name and its result -> what is handed on in place of the result"""


@dataclass(frozen=True)
class Work:
    """A function that each process makes for itself, once: this class is picklable, the function need not be."""

    kind: Callable[..., Callable[[Any], Any]]
    """a class of functions, or what makes one"""
    arguments: tuple[Any, ...]
    store: Store | None = None

    def function(self) -> Callable[[str, Any], Any]:
        """Makes the function of a name and the item of that name."""
        function, store = self.kind(*self.arguments), self.store
        if store is None:
            return lambda _, item: function(item)
        return lambda name, item: store(name, function(item))


class LocalRunner:
    """Processes of this machine."""

    def __init__(self, data: Data):
        self._data = data

    def map_blocks(
        self,
        files: list[SourceFile],
        kind: Callable[..., Callable[[Block], Any]],
        *arguments: Any,
        store: Store | None = None,
        done: frozenset[str] = frozenset(),
        module: str | None = None,
    ) -> Iterator[Any]:
        """Yields a function's result for each block of some files, in order.

        Args:
          files: files that are cut into blocks.
          kind: called once in each process, gives the function; picklable.
          arguments: of the call.
          store: called with the name of a block and its result, on this machine, as near to the work as can be: in the
            process that did it. Its answer is yielded instead.
          done: names of blocks to leave out.
          module: module that takes long to import, such as TensorFlow: imported once, by a process from which the
            others are forked, so that they share its memory as well.

        Raises:
          InputError: a process was ended from outside, such as for want of memory.
        """
        return self._work_on(files, Work(kind, arguments, store), done, module)

    def _work_on(self, files: list[SourceFile], work: Work, done: frozenset[str], module: str | None) -> Iterator[Any]:
        blocks = (block for file in files for block in readers.blocks(file, self._data) if block.name not in done)
        return _in_processes(work, ((block.name, block) for block in blocks), self._data.workers, module)

    def map_tables(
        self,
        names: list[str],
        kind: Callable[..., Callable[[str], Any]],
        *arguments: Any,
        module: str | None = None,
    ) -> Iterator[Any]:
        """Yields a function's result for the name of each block, in order, by processes of this machine.

        The tables of the blocks lie on this machine, even if others made them. For the arguments see `map_blocks`.
        """
        return _in_processes(Work(kind, arguments), ((name, name) for name in names), self._data.workers, module)


_function: Callable[[str, Any], Any] | None = None


def _in_processes(
    work: Work, items: Iterable[tuple[str, Any]], processes: int | None, module: str | None
) -> Iterator[Any]:
    """Yields the function's result for each name and item; one process per processor, or none for few items."""
    items = iter(items)
    first = deque(itertools.islice(items, ALONE_BLOCKS + 1))
    if processes is None:
        processes = 1 if len(first) <= ALONE_BLOCKS else len(os.sched_getaffinity(0))
    if processes == 1:
        yield from itertools.starmap(work.function(), _taken(first, items))
        return
    context = multiprocessing.get_context("spawn" if module is None else "forkserver")
    if module is not None:
        context.set_forkserver_preload([module])
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(work,))
    waiting: deque = deque()
    try:
        for name, item in _taken(first, items):
            waiting.append(pool.submit(_call, name, item))
            if len(waiting) > _AHEAD * processes:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepared data was ended from outside, most likely for want of memory; give the same "
            "command again, it goes on from there, with fewer processes: --set data.workers=1"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _taken(first: deque, others: Iterable[Any]) -> Iterator[Any]:
    """Yields the first items, of which none is kept (32 blocks are 64 MB), then the others."""
    while first:
        yield first.popleft()
    yield from others


def _start(work: Work) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, daemon=True).start()
    # pyarrow's own pool keeps pages that are free, in huge pages: 50 MiB a process (pyarrow 25.0).
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    _function = work.function()


def _follow_parent() -> None:
    """Ends this process with its parent, however that ended: a pool's processes would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(name: str, item: Any) -> Any:
    return _function(name, item)
