"""Datasets of `tf.data` that end when they are asked to."""

from __future__ import annotations

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the same dataset, whose iterators have no thread that tunes them.

    TensorFlow starts one for each iterator, even where there is nothing to tune. The thread sleeps between two looks,
    up to a minute. Now and then it misses that its iterator is deleted, and the deletion waits until it wakes (2.20,
    `findings/tensorflow_data_iterators_end_late.sh`).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
