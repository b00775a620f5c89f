"""Layers whose weights are stored as 8-bit codes, in two forms: for converters, and for a server.

- `CodedDense`, `CodedEmbedding`: codes are constants of the graph, which any converter reads. Each function of a
  SavedModel that TensorFlow runs keeps float copies of its own, up to 10 MB a kernel, and larger ones are multiplied by
  their scales in each call.
- `LoadedDense`, `LoadedEmbedding`: codes are variables, and a SavedModel computes each float kernel once, when it is
  loaded. Converters do not run what a SavedModel does then: tf2onnx 1.17 leaves such kernels out without a word, and
  OpenVINO 2026.4 refuses the model.
"""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf
import tf_keras

CODES = "codes"
"""name, within their layer, of the constants that hold 8-bit weights"""


class CodedDense(tf_keras.layers.Layer):
    """`BroadcastDense` whose kernel is 8-bit codes, constants of the graph, multiplied by their scales when it runs."""

    def __init__(self, codes: np.ndarray, scale: np.ndarray, **kwargs):
        """Takes the kernel.

        Args:
          codes: [into, units] int8.
          scale: [units] float32.
          **kwargs: of a Keras layer.
        """
        super().__init__(**kwargs)
        self._codes, self._scale = codes, scale

    def build(self, input_shape):
        """Makes the bias, [units] float32."""
        self.bias = self.add_weight(name="bias", shape=(len(self._scale),), initializer="zeros")
        super().build(input_shape)

    def kernel(self) -> tf.Tensor:
        """Returns the kernel: [into, units] float32."""
        return tf.cast(tf.constant(self._codes, name=CODES), tf.float32) * tf.constant(self._scale, name="scale")

    def call(self, x):
        """Projects: [batch, length, into] float32 -> [batch, length, units] float32."""
        return tf.matmul(x, self.kernel()) + self.bias


class CodedEmbedding(tf_keras.layers.Layer):
    """`GatherEmbedding` of 8-bit rows, constants of the graph: rows are gathered as they are, then scaled."""

    def __init__(self, codes: np.ndarray, scale: np.ndarray, **kwargs):
        """Takes the table.

        Args:
          codes: [rows, width] int8.
          scale: [rows] float32.
          **kwargs: of a Keras layer.
        """
        super().__init__(**kwargs)
        self._codes, self._scale = codes, scale

    def table(self) -> tf.Tensor | tf.Variable:
        """Returns the codes: [rows, width] int8."""
        return tf.constant(self._codes, name=CODES)

    def call(self, ids):
        """Gathers and scales: [batch, length] int32 -> [batch, length, width] float32."""
        rows = tf.cast(tf.gather(self.table(), ids), tf.float32)
        return rows * tf.expand_dims(tf.gather(tf.constant(self._scale, name="scale"), ids), -1)


class DecodedKernel(tf.saved_model.experimental.TrackableResource):
    """A float32 kernel that a SavedModel computes from 8-bit codes once, when it is loaded, as it fills lookup tables.

    A server drops the kernels with the session. A Python program keeps them after it has dropped the model: a function
    that destroyed them would do so while a signature, which does not keep its model, is still asked.
    """

    def __init__(self, codes: tf.Variable, scale: np.ndarray, name: str):
        """Takes the kernel.

        Args:
          codes: [into, units] int8.
          scale: [units] float32.
          name: of its layer.
        """
        super().__init__()
        self._codes, self._scale = codes, scale
        # Only the process that exports shares by name; a loader adds a number of its own.
        self._shared_name = f"{name}.{hashlib.sha256(codes.numpy().tobytes() + scale.tobytes()).hexdigest()}"

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(
            dtype=tf.float32, shape=self._codes.shape, shared_name=self._shared_name, container=""
        )

    def _initialize(self) -> None:
        kernel = tf.cast(self._codes, tf.float32) * self._scale
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=kernel)

    def read(self) -> tf.Tensor:
        """Returns the kernel: [into, units] float32."""
        found = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)
        return tf.ensure_shape(found, self._codes.shape)


class LoadedDense(CodedDense):
    """`CodedDense` whose codes are a variable, and whose kernel is computed when a SavedModel is loaded."""

    def __init__(self, codes: np.ndarray, scale: np.ndarray, **kwargs):
        """See `CodedDense`."""
        super().__init__(codes, scale, **kwargs)
        self.codes = tf.Variable(codes, trainable=False, name=CODES)
        self.decoded = DecodedKernel(self.codes, scale, self.name)

    def kernel(self) -> tf.Tensor:
        """Returns the kernel: [into, units] float32."""
        return self.decoded.read()


class LoadedEmbedding(CodedEmbedding):
    """`CodedEmbedding` whose codes are a variable."""

    def __init__(self, codes: np.ndarray, scale: np.ndarray, **kwargs):
        """See `CodedEmbedding`."""
        super().__init__(codes, scale, **kwargs)
        self.codes = tf.Variable(codes, trainable=False, name=CODES)

    def table(self) -> tf.Tensor | tf.Variable:
        """Returns the codes: [rows, width] int8."""
        return self.codes
