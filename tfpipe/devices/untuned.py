"""Datasets of `tf.data` that end when they are asked to."""

from __future__ import annotations

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, whose iterators have no thread that tunes them.

    TensorFlow starts one for each iterator, also where nothing is left to tune. It sleeps for ever longer, up to a
    minute, and now and then misses that its iterator is at an end: whoever lets go of the iterator waits so long (2.20,
    `findings/tensorflow_data_iterators_end_late.sh`). A fit has an iterator, and each of its evaluations another.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
