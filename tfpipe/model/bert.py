"""The BERT classifier: a flat functional Keras graph over one trunk (Devlin et al., 2019).

Layer names are the names of transformers' tensors (`encoder.layer.0.attention.self.query`), so weights and learned
ranges move between the forms below, files and other libraries by name alone. A quantization point (`….input`) stands
before every projection that can be 8 bits wide.

- training form: `input_ids, token_type_ids, segment_ids, position_ids` [rows, length] int32, `cls_index` [examples]
  int32, `dropout_key` [2] int32 -> logits [examples, labels] float32. A row may hold several examples.
- mask form: `input_ids, attention_mask, token_type_ids` [batch, length] int32 -> logits [batch, labels] float32,
  float32 throughout: what is evaluated, exported and served.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import tensorflow as tf
import tf_keras

from tfpipe.model.layers import (
    Activation,
    AttentionContext,
    BroadcastDense,
    Dropout,
    FakeQuantize,
    GatherClassToken,
    GatherEmbedding,
    LayerNormalization,
    MaskBias,
    Positions,
    QuantizationPoint,
    SegmentBias,
)

MASK_FORM_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""of the mask form and of every artefact that takes token ids, each [batch, length]"""


@dataclass(frozen=True)
class Architecture:
    """Shape of an encoder, in the words of transformers' BertConfig."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    pad_token_id: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Architecture:
        """Takes the keys it knows from a config.json."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    def with_dropout(self, rate: float | None) -> Architecture:
        """The same encoder with one dropout rate everywhere; None keeps the rates."""
        if rate is None:
            return self
        return replace(self, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)

    def to_dict(self) -> dict[str, Any]:
        """The keys of config.json."""
        return asdict(self)


def build_training_form(architecture: Architecture, num_labels: int) -> tf_keras.Model:
    """The classifier that trains, under the global Keras policy."""
    names = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in names}
    inputs["cls_index"] = tf_keras.Input((), dtype=tf.int32, name="cls_index")
    inputs["dropout_key"] = tf_keras.Input(batch_shape=(2,), dtype=tf.int32, name="dropout_key")
    bias = SegmentBias(name="attention_bias", dtype="float32")(inputs["segment_ids"])
    trunk = _Trunk(
        architecture, tf_keras.layers.Dense, tf_keras.layers.Embedding, ranges={}, dropout_key=inputs["dropout_key"]
    )
    states = trunk(inputs["input_ids"], inputs["token_type_ids"], inputs["position_ids"], bias)
    cls = GatherClassToken(name="cls")([states, inputs["cls_index"]])
    return tf_keras.Model(inputs, _head(trunk, cls, num_labels), name="bert_classifier")


def build_mask_form(
    architecture: Architecture, num_labels: int, ranges: dict[str, tuple[float, float]] | None = None
) -> tf_keras.Model:
    """The classifier that is evaluated and exported, in float32.

    Args:
      architecture: shape of the encoder.
      num_labels: width of the logits.
      ranges: quantization point -> (minimum, maximum); a point without an entry stays float.
    """
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in MASK_FORM_INPUTS}
        bias = MaskBias(name="attention_bias")(inputs["attention_mask"])
        positions = Positions(name="positions")(inputs["input_ids"])
        trunk = _Trunk(architecture, BroadcastDense, GatherEmbedding, ranges=ranges or {}, dropout_key=None)
        states = trunk(inputs["input_ids"], inputs["token_type_ids"], positions, bias)
        cls = tf_keras.layers.Lambda(lambda x: x[:, 0], name="cls")(states)
        return tf_keras.Model(inputs, _head(trunk, cls, num_labels), name="bert_classifier")
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


class _Trunk:
    """Builds the encoder's layers; what differs between the forms is given once, here."""

    def __init__(
        self,
        architecture: Architecture,
        dense: type,
        embedding: type,
        ranges: dict[str, tuple[float, float]],
        dropout_key,
    ):
        self.architecture, self._dense, self._embedding = architecture, dense, embedding
        self._ranges, self._key = ranges, dropout_key
        self._dropouts = 0

    def __call__(self, input_ids, token_type_ids, position_ids, bias):
        """[batch, length] int32 inputs and an attention bias -> hidden states [batch, length, hidden]."""
        a = self.architecture
        embedded = [
            self._embedding(size, a.hidden_size, name=f"embeddings.{name}_embeddings")(ids)
            for name, size, ids in (
                ("word", a.vocab_size, input_ids),
                ("position", a.max_position_embeddings, position_ids),
                ("token_type", a.type_vocab_size, token_type_ids),
            )
        ]
        x = self.norm("embeddings.LayerNorm", tf_keras.layers.Add(name="embeddings.sum")(embedded))
        x = self.dropout("embeddings.dropout", x)
        for index in range(a.num_hidden_layers):
            x = self._layer(f"encoder.layer.{index}", x, bias)
        return x

    def _layer(self, name: str, x, bias):
        a = self.architecture
        point = self.point(f"{name}.attention.self.input", x)
        query, key, value = (
            self.dense(f"{name}.attention.self.{part}", a.hidden_size, point) for part in ("query", "key", "value")
        )
        context_inputs = [query, key, value, bias]
        attention = {"num_heads": a.num_attention_heads}
        if self._key is not None:
            context_inputs.append(self._key)
            attention |= {"rate": a.attention_probs_dropout_prob, "salt": self._next_salt()}
        context = AttentionContext(**attention, name=f"{name}.attention.self.context")(context_inputs)
        attended = self._projected(f"{name}.attention.output", a.hidden_size, context)
        x = self._normalized(f"{name}.attention.output", attended, x)
        inner = self._projected(f"{name}.intermediate", a.intermediate_size, x)
        inner = Activation(a.hidden_act, name=f"{name}.intermediate.activation")(inner)
        outer = self._projected(f"{name}.output", a.hidden_size, inner)
        return self._normalized(f"{name}.output", outer, x)

    def _projected(self, name: str, units: int, x):
        return self.dense(f"{name}.dense", units, self.point(f"{name}.input", x))

    def _normalized(self, name: str, x, residual):
        x = self.dropout(f"{name}.dropout", x)
        return self.norm(f"{name}.LayerNorm", tf_keras.layers.Add(name=f"{name}.sum")([x, residual]))

    def dense(self, name: str, units: int, x, **kwargs):
        """A projection."""
        initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02)
        return self._dense(units, name=name, kernel_initializer=initializer, **kwargs)(x)

    def norm(self, name: str, x):
        """A layer normalization."""
        return LayerNormalization(self.architecture.layer_norm_eps, name=name)(x)

    def point(self, name: str, x):
        """What enters a projection: where an activation is 8 bits wide. The residual beside it stays float."""
        if self._key is not None:
            return QuantizationPoint(name=name)(x)
        return FakeQuantize(*self._ranges[name], name=name)(x) if name in self._ranges else x

    def dropout(self, name: str, x):
        """Dropout of hidden states; nothing at all in the mask form."""
        if self._key is None:
            return x
        return Dropout(self.architecture.hidden_dropout_prob, self._next_salt(), name=name)([x, self._key])

    def _next_salt(self) -> int:
        self._dropouts += 1
        return self._dropouts


def _head(trunk: _Trunk, cls, num_labels: int):
    """Pooler and classifier, as transformers' BertForSequenceClassification; logits in float32."""
    pooled = trunk.dense("pooler.dense", trunk.architecture.hidden_size, trunk.point("pooler.input", cls))
    pooled = tf_keras.layers.Activation("tanh", name="pooler.activation")(pooled)
    pooled = trunk.dropout("classifier.dropout", pooled)
    return trunk.dense("classifier", num_labels, pooled, dtype="float32")
