"""The shape of an encoder: read from a config.json and checked, with the tensors that it implies. No TensorFlow.

Enters: the content of a transformers config.json. Leaves: an `Architecture`, in the words of transformers' BertConfig.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from tfpipe.errors import InputError

INFERENCE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""of the inference model and of every artifact that takes token ids, each [batch, length]"""
PER_LAYER = {"attention_heads_per_layer": "num_attention_heads", "intermediate_size_per_layer": "intermediate_size"}
"""keys of a classifier that tfpipe pruned by structure -> the key of a BERT whose layers are all the same"""
# transformers' names on the left. What it calls "gelu" is exact (erf), the other two are the tanh approximation.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
}
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
_MOST, _MOST_OTHERWISE = {"num_hidden_layers": 1000}, 1 << 24  # beyond, a file is damaged and would cost hours


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
    attention_heads_per_layer: tuple[int, ...] | None = None
    """what structured pruning left; None: `num_attention_heads` in each"""
    intermediate_size_per_layer: tuple[int, ...] | None = None
    """what structured pruning left; None: `intermediate_size` in each"""

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Architecture:
        """Takes the keys it knows from a config.json, unchecked: see `check_architecture`.

        Raises:
          KeyError: a key is missing that every BERT has.
        """
        given = {field.name: config[field.name] for field in fields(cls) if field.default is MISSING}
        for name in PER_LAYER:
            if config.get(name) is not None:
                given[name] = tuple(config[name])
        return cls(**given)

    @property
    def head_width(self) -> int:
        """Gives the width of a head's queries, keys and values, in every layer."""
        return self.hidden_size // self.num_attention_heads

    @property
    def heads(self) -> tuple[int, ...]:
        """Gives the number of attention heads of each layer."""
        return self.attention_heads_per_layer or (self.num_attention_heads,) * self.num_hidden_layers

    @property
    def widths(self) -> tuple[int, ...]:
        """Gives the number of feed-forward columns of each layer."""
        return self.intermediate_size_per_layer or (self.intermediate_size,) * self.num_hidden_layers

    def with_dropout(self, rate: float | None) -> Architecture:
        """Returns the same encoder with one dropout rate everywhere; None keeps the rates."""
        if rate is None:
            return self
        return replace(self, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)

    def of_layers(self, layers: Sequence[int]) -> Architecture:
        """Returns the shape of an encoder of some of the layers."""
        chosen = {
            key: tuple(counts[layer] for layer in layers)
            for key in PER_LAYER
            if (counts := getattr(self, key)) is not None
        }
        return replace(self, num_hidden_layers=len(layers), **chosen)

    def to_config(self) -> dict[str, Any]:
        """Gives the keys of the config.json of a classifier that transformers loads as it is."""
        identity = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
        return {**identity, "position_embedding_type": "absolute", **self.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """Gives the keys of config.json; counts per layer only where layers differ, as BERT's do not."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def size(self) -> int:
        """Gives the number of weights of a `BertModel` of this shape."""
        return sum(map(math.prod, self.tensor_shapes().values()))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Lists names and shapes of all tensors of a `BertModel` of this shape, pooler included, kernels [out, in]."""
        hidden = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
        }
        for layer, (heads, inner) in enumerate(zip(self.heads, self.widths, strict=True)):
            attention = heads * self.head_width
            for name, out_size, in_size in (
                ("attention.self.query", attention, hidden),
                ("attention.self.key", attention, hidden),
                ("attention.self.value", attention, hidden),
                ("attention.output.dense", hidden, attention),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
            ):
                shapes[f"encoder.layer.{layer}.{name}.weight"] = (out_size, in_size)
                shapes[f"encoder.layer.{layer}.{name}.bias"] = (out_size,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                shapes[f"encoder.layer.{layer}.{name}.weight"] = (hidden,)
                shapes[f"encoder.layer.{layer}.{name}.bias"] = (hidden,)
        return {**shapes, "pooler.dense.weight": (hidden, hidden), "pooler.dense.bias": (hidden,)}


def check_architecture(config: dict[str, Any], where: str) -> Architecture:
    """Reads and checks the keys of a `BertConfig` that decide the computation of a BERT.

    Args:
      config: content of a transformers config.json.
      where: file that it came from, for messages.

    Raises:
      InputError: another kind of model, or a value that is missing or makes no sense.
    """

    def fail(key: str, rule: str) -> InputError:
        received = f"is {json.dumps(config[key])}" if key in config else "is missing"
        return InputError(f"{where}: {key} {received}; {rule}")

    def whole(key: str) -> int:
        value = config.get(key)
        if type(value) is not int or not 1 <= value <= _MOST.get(key, _MOST_OTHERWISE):
            raise fail(key, f"expected a whole number from 1 to {_MOST.get(key, _MOST_OTHERWISE)}")
        return value

    def real(key: str, default: float | None, low: float, high: float) -> float:
        value = config.get(key, default)
        if type(value) not in (int, float) or not low <= value < high:
            raise fail(key, f"expected a number from {low:g} to {high:g}")
        return float(value)

    if config.get("model_type") != "bert":
        raise fail("model_type", 'only "bert" is supported (RoBERTa, DistilBERT, ALBERT and the like are not)')
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise fail("position_embedding_type", 'only "absolute" is supported')
    if config.get("hidden_act") not in tuple(ACTIVATIONS):  # a tuple: what was written may not be hashable
        raise fail("hidden_act", f"supported are {', '.join(ACTIVATIONS)}")
    for key in ("pruned_heads", "is_decoder", "add_cross_attention", "quantization_config"):
        if config.get(key):
            raise fail(key, "only a plain, dense BERT encoder is supported")
    sizes = {key: whole(key) for key in _SIZES}
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise fail("hidden_size", f"expected a multiple of num_attention_heads ({sizes['num_attention_heads']})")
    per_layer = {}
    for key, most in PER_LAYER.items():
        counts = config.get(key)
        if counts is None:
            continue
        if (
            not isinstance(counts, list)
            or len(counts) != sizes["num_hidden_layers"]
            or not all(type(count) is int and 1 <= count <= sizes[most] for count in counts)
        ):
            raise fail(key, f"expected num_hidden_layers whole numbers from 1 to {most}")
        per_layer[key] = tuple(counts)
    # The first published configurations have no pad_token_id and no layer_norm_eps: 0 and 1e-12 are BERT's own.
    pad_token_id = config.get("pad_token_id", 0)
    if type(pad_token_id) is not int or not 0 <= pad_token_id < sizes["vocab_size"]:
        raise fail("pad_token_id", f"expected a token id from 0 to {sizes['vocab_size'] - 1}")
    return Architecture(
        **sizes,
        hidden_act=ACTIVATIONS[config["hidden_act"]],
        layer_norm_eps=real("layer_norm_eps", 1e-12, 1e-15, 0.01),
        hidden_dropout_prob=real("hidden_dropout_prob", None, 0.0, 1.0),
        attention_probs_dropout_prob=real("attention_probs_dropout_prob", None, 0.0, 1.0),
        pad_token_id=pad_token_id,
        **per_layer,
    )
