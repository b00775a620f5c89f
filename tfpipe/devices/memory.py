"""Memory that the process no longer needs: collected, and given back to the system."""

from __future__ import annotations

import ctypes
import gc
import os

LARGE = 64_000_000
"""weights of an encoder from which on freed memory is returned at once"""


def return_freed(weights: int) -> None:
    """Has TensorFlow return freed memory to the system, if an encoder is large. TensorFlow must not have started yet.

    With oneDNN, TensorFlow takes memory on a processor in blocks, each twice as large as the one before, and keeps
    them: 1.6 GB after BERT-base has been trained, and more after each stage. The C library's allocator gives large
    tensors back. The steps of BERT-base are as fast with it, those of a small encoder 2 % slower, so that these keep
    the blocks.

    Args:
      weights: of the encoder.
    """
    if weights >= LARGE:
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def give_back() -> None:
    """Collects objects that nothing refers to, and returns the pages of freed memory to the system.

    The C library keeps freed pages for what is allocated next. After a stage, and after an artifact, that is much:
    models, optimizers, graphs. TensorFlow's functions refer to each other in circles, which reference counts keep.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
