"""The BERT classifier: a flat functional Keras graph over one trunk (Devlin et al., 2019).

Layer names are the names of transformers' tensors (`encoder.layer.0.attention.self.query`), so weights and learned
ranges move between the models below, files and other libraries by name alone. A quantization point (`….input`) stands
before every projection that can be 8 bits wide.

- training model: `input_ids, token_type_ids, segment_ids, position_ids` [rows, length] int32, `cls_index` [rows,
  slots] int32, `dropout_key` [3] int32 -> logits [rows, slots, labels] float32. A row may hold several examples, each a
  segment of its own; the slots say where their `[CLS]` stand.
- inference model: `input_ids, attention_mask, token_type_ids` [batch, length] int32 -> logits [batch, labels] float32,
  float32 throughout: the model that is evaluated, exported and served.
- differentiable model: the same function of `word_embeddings` [batch, length, hidden] float32 in place of the ids.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.encoders.parameters import stored_layer
from tfpipe.model.coded import CodedDense, CodedEmbedding, LoadedDense, LoadedEmbedding
from tfpipe.model.layers import (
    Activation,
    AttentionContext,
    BroadcastDense,
    CompiledActivation,
    Dropout,
    FakeQuantize,
    FirstToken,
    FlatDense,
    GatherClassToken,
    GatherEmbedding,
    LayerNormalization,
    MaskBias,
    PackedAttentionContext,
    Positions,
    QuantizationPoint,
    ResidualNormalization,
)


@tf.autograph.experimental.do_not_convert
def build_training_model(architecture: Architecture, num_labels: int) -> tf_keras.Model:
    """Builds the classifier that trains, under the global Keras policy."""
    names = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in names}
    inputs["cls_index"] = tf_keras.Input((None,), dtype=tf.int32, name="cls_index")
    inputs["dropout_key"] = tf_keras.Input(batch_shape=(3,), dtype=tf.int32, name="dropout_key")
    trunk = _TrainingTrunk(architecture, inputs)
    cls = trunk(inputs["input_ids"], inputs["token_type_ids"], inputs["position_ids"])
    return tf_keras.Model(inputs, _head(trunk, cls, num_labels), name="bert_classifier")


@tf.autograph.experimental.do_not_convert
def build_inference_model(
    architecture: Architecture,
    num_labels: int,
    ranges: dict[str, tuple[float, float]] | None = None,
    codes: dict[str, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    loaded: bool = False,
) -> tf_keras.Model:
    """Builds the classifier that is evaluated and exported, in float32.

    Args:
      architecture: shape of the encoder.
      num_labels: width of the logits.
      ranges: quantization point -> (minimum, maximum); a point without an entry stays float.
      codes: weight, as `bert.….weight` -> its codes, [out, in] or [rows, width] int8, and their scales, [out] or [rows]
        float32. A weight without an entry is a float variable.
      loaded: whether a SavedModel computes float kernels of the codes when it is loaded, and the codes are variables;
        else they are constants of the graph: see `coded.py`.
    """
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in INFERENCE_INPUTS}
        trunk = (_LoadedTrunk if loaded else _MaskTrunk)(architecture, inputs, ranges or {}, codes or {})
        positions = Positions(name="positions")(inputs["input_ids"])
        states = trunk(inputs["input_ids"], inputs["token_type_ids"], positions)
        cls = tf_keras.layers.Lambda(lambda x: x[:, 0], name="cls")(states)
        return tf_keras.Model(inputs, _head(trunk, cls, num_labels), name="bert_classifier")
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


@tf.autograph.experimental.do_not_convert
def build_differentiable_model(
    architecture: Architecture, num_labels: int, ranges: dict[str, tuple[float, float]] | None = None
) -> tf_keras.Model:
    """Builds the inference model for gradients by the word embeddings of its tokens.

    `word_embeddings` [batch, length, hidden] float32, `attention_mask, token_type_ids` [batch, length] int32 -> logits
    [batch, labels] float32. A gradient takes 2.5 times less processor time than by the model that is exported.

    Args:
      architecture: shape of the encoder.
      num_labels: width of the logits.
      ranges: as of `build_inference_model`; a rounding passes its gradient on within its range, and none outside.
    """
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in INFERENCE_INPUTS[1:]}
        words = tf_keras.Input((None, architecture.hidden_size), dtype=tf.float32, name="word_embeddings")
        trunk = _GradientTrunk(architecture, inputs, ranges or {}, {})
        positions = Positions(name="positions")(inputs["token_type_ids"])
        logits = _head(trunk, trunk(words, inputs["token_type_ids"], positions), num_labels)
        logits = tf_keras.layers.Lambda(lambda x: x[:, 0], name="cls")(logits)
        return tf_keras.Model({"word_embeddings": words, **inputs}, logits, name="differentiable_classifier")
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


class _Trunk:
    """The encoder's layers; its forms differ in the few methods that they define."""

    dense_class: type
    activation_class: type

    def __init__(self, architecture: Architecture):
        self.architecture = architecture

    def __call__(self, input_ids, token_type_ids, position_ids):
        """Builds the trunk: [rows, length] int32 inputs -> hidden states of the class tokens, [rows, slots, hidden]."""
        a = self.architecture
        word, position, token_type = (
            self.embedding(f"embeddings.{name}_embeddings", size, ids)
            for name, size, ids in (
                ("word", a.vocab_size, input_ids),
                ("position", a.max_position_embeddings, position_ids),
                ("token_type", a.type_vocab_size, token_type_ids),
            )
        )
        x = self.embedded(word, position, token_type)
        for index in range(a.num_hidden_layers):
            x = self._layer(index, x)
        return x

    def _layer(self, index: int, x):
        a, name = self.architecture, f"encoder.layer.{index}"
        heads, last = a.heads[index], index == a.num_hidden_layers - 1
        states = self.point(f"{name}.attention.self.input", x)
        queries, residual = states, x
        if last:  # only the class tokens are read after it: they alone ask, and the other tokens are keys and values
            residual = self.class_tokens(f"{name}.residual", x)
            queries = residual if states is x else self.class_tokens(f"{name}.queries", states)
        query, key, value = (
            self.dense(f"{name}.attention.self.{part}", heads * a.head_width, source)
            for part, source in (("query", queries), ("key", states), ("value", states))
        )
        context = self.attention(f"{name}.attention.self.context", query, key, value, heads=heads, last=last)
        attended = self._projected(f"{name}.attention.output", a.hidden_size, context)
        x = self.normalized(f"{name}.attention.output", attended, residual)
        inner = self._projected(f"{name}.intermediate", a.widths[index], x)
        inner = self.activation_class(a.hidden_act, name=f"{name}.intermediate.activation")(inner)
        outer = self._projected(f"{name}.output", a.hidden_size, inner)
        return self.normalized(f"{name}.output", outer, x)

    def _projected(self, name: str, units: int, x):
        return self.dense(f"{name}.dense", units, self.point(f"{name}.input", x))

    def dense(self, name: str, units: int, x, **kwargs):
        """Adds a projection."""
        return self.dense_class(units, name=name, kernel_initializer=self.initializer(), **kwargs)(x)

    def initializer(self):
        """Returns an initializer of a new kernel."""
        return tf_keras.initializers.TruncatedNormal(stddev=0.02)


class _TrainingTrunk(_Trunk):
    """Packed rows, dropout, points that quantization-aware training can wrap."""

    dense_class = FlatDense
    activation_class = CompiledActivation

    def __init__(self, architecture: Architecture, inputs: dict[str, tf.Tensor]):
        super().__init__(architecture)
        self._segments, self._cls_index = inputs["segment_ids"], inputs["cls_index"]
        self._key, self._dropouts = inputs["dropout_key"], 0

    def embedding(self, name: str, size: int, ids):
        """Adds a table."""
        return tf_keras.layers.Embedding(size, self.architecture.hidden_size, name=name)(ids)

    def embedded(self, word, position, token_type):
        """Adds sum, normalization and dropout."""
        other = tf_keras.layers.Add(name="embeddings.sum")([position, token_type])
        x = self._residual_normalization("embeddings.LayerNorm", word, other, rate=0.0)
        return self.dropout("embeddings.dropout", x)

    def attention(self, name: str, query, key, value, heads: int, last: bool):
        """Adds attention within each segment."""
        segments = self.class_tokens("cls.segments", self._segments) if last else self._segments
        rate = self.architecture.attention_probs_dropout_prob
        layer = PackedAttentionContext(heads, rate, self._next_salt(), name=name)
        return layer([query, key, value, segments, self._segments, self._key])

    def normalized(self, name: str, x, residual):
        """Adds dropout, sum and normalization."""
        return self._residual_normalization(
            f"{name}.LayerNorm", x, residual, rate=self.architecture.hidden_dropout_prob
        )

    def point(self, name: str, x):
        """Marks the input of a projection, where an activation is 8 bits wide. The residual beside it stays float."""
        return QuantizationPoint(name=name)(x)

    def class_tokens(self, name: str, x):
        """Takes the class tokens: [rows, length, …] -> [rows, slots, …]."""
        return GatherClassToken(name=name)([x, self._cls_index])

    def dropout(self, name: str, x):
        """Adds dropout of hidden states."""
        return Dropout(self.architecture.hidden_dropout_prob, self._next_salt(), name=name)([x, self._key])

    def _residual_normalization(self, name: str, x, residual, rate: float):
        layer = ResidualNormalization(self.architecture.layer_norm_eps, rate, self._next_salt(), name=name)
        return layer([x, residual, self._key])

    def _next_salt(self) -> int:
        self._dropouts += 1
        return self._dropouts


class _MaskTrunk(_Trunk):
    """One example a row, no dropout, learned ranges fixed: plain operators that convert well."""

    dense_class = BroadcastDense
    activation_class = Activation
    coded_dense_class = CodedDense
    coded_embedding_class = CodedEmbedding

    def __init__(
        self,
        architecture: Architecture,
        inputs: dict[str, tf.Tensor],
        ranges: dict[str, tuple[float, float]],
        codes: dict[str, tuple[np.ndarray, np.ndarray]],
    ):
        super().__init__(architecture)
        self._bias, self._ranges = MaskBias(name="attention_bias")(inputs["attention_mask"]), ranges
        self._codes = codes

    def initializer(self):
        """Returns an initializer of a kernel that gets its values later: random ones would take seconds to draw."""
        return tf_keras.initializers.Zeros()

    def dense(self, name: str, units: int, x, **kwargs):
        """Adds a projection, of codes where there are some."""
        if f"{stored_layer(name)}.weight" not in self._codes:
            return super().dense(name, units, x, **kwargs)
        codes, scale = self._codes[f"{stored_layer(name)}.weight"]
        return self.coded_dense_class(np.ascontiguousarray(codes.T), scale, name=name)(x)

    def embedding(self, name: str, size: int, ids):
        """Adds a table, of codes where there are some."""
        if f"{stored_layer(name)}.weight" in self._codes:
            return self.coded_embedding_class(*self._codes[f"{stored_layer(name)}.weight"], name=name)(ids)
        width, zeros = self.architecture.hidden_size, self.initializer()
        return GatherEmbedding(size, width, embeddings_initializer=zeros, name=name)(ids)

    def embedded(self, word, position, token_type):
        """Adds sum and normalization."""
        return self._norm("embeddings", tf_keras.layers.Add(name="embeddings.sum")([word, position, token_type]))

    def attention(self, name: str, query, key, value, heads: int, last: bool):
        """Adds attention over the row."""
        return AttentionContext(heads, name=name)([query, key, value, self._bias])

    def normalized(self, name: str, x, residual):
        """Adds sum and normalization."""
        return self._norm(name, tf_keras.layers.Add(name=f"{name}.sum")([x, residual]))

    def point(self, name: str, x):
        """Rounds to 256 levels where a range was learned."""
        return FakeQuantize(*self._ranges[name], name=name)(x) if name in self._ranges else x

    def class_tokens(self, name: str, x):
        """Takes the class tokens: [batch, length, hidden] -> [batch, 1, hidden]."""
        return FirstToken(name=name)(x)

    def dropout(self, name: str, x):
        """Adds nothing."""
        return x

    def _norm(self, name: str, x):
        return LayerNormalization(self.architecture.layer_norm_eps, name=f"{name}.LayerNorm")(x)


class _LoadedTrunk(_MaskTrunk):
    """A `_MaskTrunk` whose codes are variables, for a server: kernels are computed when a SavedModel is loaded."""

    coded_dense_class = LoadedDense
    coded_embedding_class = LoadedEmbedding


class _GradientTrunk(_MaskTrunk):
    """A `_MaskTrunk` of given word embeddings, by products of matrices, so that gradients are such products too."""

    dense_class = FlatDense

    def embedding(self, name: str, size: int, ids):
        """Adds a table, or passes on the word embeddings, which stand in the place of their ids."""
        return ids if name == "embeddings.word_embeddings" else super().embedding(name, size, ids)


def _head(trunk: _Trunk, cls, num_labels: int):
    """Adds pooler and classifier, as transformers' BertForSequenceClassification; logits in float32."""
    pooled = trunk.dense("pooler.dense", trunk.architecture.hidden_size, trunk.point("pooler.input", cls))
    pooled = tf_keras.layers.Activation("tanh", name="pooler.activation")(pooled)
    pooled = trunk.dropout("classifier.dropout", pooled)
    return trunk.dense("classifier", num_labels, pooled, dtype="float32")
