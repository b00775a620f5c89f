"""Memory that the process no longer needs: collected, and given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collects objects that nothing refers to, and returns the pages of freed memory to the system.

    The C library keeps freed pages for what is allocated next. After a stage, and after an artifact, that is much:
    models, optimizers, graphs. TensorFlow's functions refer to each other in circles, which reference counts keep.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
