"""The kernels that an int8 SavedModel computes when it is loaded: destroyed with the model that tfpipe loaded."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def destroy_with(loaded: Any) -> None:
    """Destroys the kernels of a loaded SavedModel when Python drops it: see `DecodedKernel`.

    Args:
      loaded: by `tf.saved_model.load`; whoever asks its signatures keeps it.
    """
    kernels = getattr(loaded, "decoded_kernels", None)  # of tfpipe's own models; others may call anything so
    if isinstance(kernels, Sequence):
        handles = [each.resource_handle for each in kernels if hasattr(each, "resource_handle")]
        weakref.finalize(loaded, _destroy, handles)


def _destroy(handles: list[tf.Tensor]) -> None:
    for handle in handles:
        tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)
