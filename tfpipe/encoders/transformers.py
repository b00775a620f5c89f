"""A BERT on disk in the transformers layout: `config.json` and safetensors, read and checked.

Enters: a local directory. Leaves: what decides its computation, as keys of transformers' `BertConfig`, and its tensors
under the names of `BertModel`, one at a time. Wrong content is an `InputError` that names the file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.errors import InputError
from tfpipe.files import path_inside, sha256_of_file

CONFIG = "config.json"
VOCABULARY = "vocab.txt"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
QUANTIZATION = "quantization.safetensors"
"""beside the weights of a classifier that tfpipe quantized"""
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
FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
_MOST, _MOST_OTHERWISE = {"num_hidden_layers": 1000}, 1 << 24  # beyond, a file is damaged and would cost hours

Tensors = Iterator[tuple[str, Callable[[], np.ndarray]]]
"""name as stored, and a function that loads the tensor"""


def check_architecture(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The keys of a `BertConfig` that decide what a BERT computes, each checked.

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
        per_layer[key] = counts
    # The first published configurations have no pad_token_id and no layer_norm_eps: 0 and 1e-12 are BERT's own.
    pad_token_id = config.get("pad_token_id", 0)
    if type(pad_token_id) is not int or not 0 <= pad_token_id < sizes["vocab_size"]:
        raise fail("pad_token_id", f"expected a token id from 0 to {sizes['vocab_size'] - 1}")
    return {
        **sizes,
        "hidden_act": ACTIVATIONS[config["hidden_act"]],
        "layer_norm_eps": real("layer_norm_eps", 1e-12, 1e-15, 0.01),
        "hidden_dropout_prob": real("hidden_dropout_prob", None, 0.0, 1.0),
        "attention_probs_dropout_prob": real("attention_probs_dropout_prob", None, 0.0, 1.0),
        "pad_token_id": pad_token_id,
        **per_layer,
    }


def weight_files(directory: Path, origin: str | None = None) -> list[Path]:
    """The safetensors of a directory: one file, or the index and its shards.

    Args:
      directory: local directory.
      origin: what transformers calls this model, where that is not the directory; for the message only.

    Raises:
      InputError: there is none, or the index names a file that is not there.
    """
    if os.path.isfile(directory / WEIGHTS):
        return [directory / WEIGHTS]
    index = directory / WEIGHTS_INDEX
    if not index.is_file():
        raise InputError(
            f"{directory}: no {WEIGHTS}. A pickle (pytorch_model.bin) is refused, since loading one can run code; to "
            "convert it, where transformers and PyTorch are installed: "
            'python -c "from transformers import AutoModel as M, AutoTokenizer as T; '
            f"source, target = '{origin or directory}', 'converted'; "
            "M.from_pretrained(source).save_pretrained(target, safe_serialization=True); "
            'T.from_pretrained(source).save_pretrained(target)"; then set encoder.source to converted'
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: weight_map is missing; expected tensor name -> file; get the file again")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if not os.path.isfile(path_inside(directory, name, str(index))):
            raise InputError(f"{index}: names {name}, which is not in its directory; get the missing file")
    return [index, *(directory / name for name in shards)]


def read_safetensors(files: list[Path], sha256: str | None, setting: str = "encoder.sha256") -> Tensors:
    """Reads the files that `weight_files` found, tensor by tensor.

    Args:
      files: safetensors, their index aside.
      sha256: expected SHA-256 of each file, or None.
      setting: where that stands, for messages.

    Raises:
      InputError: another hash, an unreadable file, or a tensor of no float type.
    """
    # Makes NumPy know bfloat16, which safetensors asks it for by name.
    import ml_dtypes  # noqa: F401
    from safetensors import SafetensorError, safe_open

    for path in files:
        if path.suffix == ".json":
            continue
        if sha256 is not None and (found := sha256_of_file(path)) != sha256:
            raise InputError(
                f"{path}: SHA-256 {sha256} expected ({setting}), {found} found; get the file again, or correct "
                f"{setting} if this file is the one that you mean"
            )
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    yield name, lambda file=file, name=name, path=path: _load_tensor(file, name, path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); get the file again") from error


def _load_tensor(file: Any, name: str, path: Path) -> np.ndarray:
    stored_type = file.get_slice(name).get_dtype()
    if stored_type not in FLOAT_TYPES:
        raise InputError(
            f"{path}: tensor {name} is stored as {stored_type}; supported are {', '.join(FLOAT_TYPES)}: use the "
            "checkpoint from before its quantization"
        )
    return file.get_tensor(name)


def standard_name(name: str) -> str:
    """A tensor's name as today's `BertModel` has it."""
    # gamma and beta are TensorFlow's names, which the first conversions to PyTorch kept.
    name = re.sub(r"\bLayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix("bert."))
    return re.sub(r"\bLayerNorm\.beta$", "LayerNorm.bias", name)


def expected_shapes(architecture: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a `BertModel` of this shape, the pooler included."""
    hidden, layers = architecture["hidden_size"], architecture["num_hidden_layers"]
    heads, widths = (architecture.get(key) or [architecture[same]] * layers for key, same in PER_LAYER.items())
    head_width = hidden // architecture["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (architecture["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (architecture["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (architecture["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in range(layers):
        inner, attention = widths[layer], heads[layer] * head_width
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


def check_vocabulary(path: Path, vocab_size: int) -> None:
    """Raises an `InputError` when a vocabulary has tokens that the model does not embed."""
    try:
        with open(path, encoding="utf-8") as file:
            count = sum(1 for _ in file)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); get the file again") from error
    if not 0 < count <= vocab_size:
        raise InputError(
            f"{path}: {count} tokens, but the model embeds {vocab_size}; the two belong to different models: get both "
            "from one place"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an `InputError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}); get the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; get the file again")
    return value
