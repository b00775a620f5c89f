"""A KerasNLP BERT preset as an encoder source: Keras 3 in, NumPy in the transformers naming out.

Enters: the name of a preset, its hub address (`kaggle://`, `hf://`), or a local preset directory. Leaves: its
configuration in the words of transformers' `BertConfig`, its tokenizer as the two files that transformers writes, its
weights by transformers' names. Keras 3 and tf-keras share a process but no objects: nothing of Keras 3 leaves here.

A preset's JSON files name classes, which Keras looks up and calls. Keras itself refuses Python code in them. This
module lets through only a BertBackbone and a BertTokenizer whose settings are plain values.

KerasNLP's BERT always uses the tanh approximation of GELU, even if its weights were trained with another; `hidden_act`
says so.
"""

from __future__ import annotations

import atexit
import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.errors import InputError
from tfpipe.files import path_inside

_CONFIG = "config.json"
_SHARDS = "model.weights.json"

# KerasNLP's variable path -> transformers' name, and how the tensor changes. Keras keeps kernels [in, out] and splits
# the heads: a query kernel is [hidden, heads, head width], the attention output's [heads, head width, hidden].
_EMBEDDINGS = {
    "token_embedding/embeddings": "embeddings.word_embeddings.weight",
    "position_embedding/embeddings": "embeddings.position_embeddings.weight",
    "segment_embedding/embeddings": "embeddings.token_type_embeddings.weight",
    "embeddings_layer_norm/gamma": "embeddings.LayerNorm.weight",
    "embeddings_layer_norm/beta": "embeddings.LayerNorm.bias",
    "pooled_dense/kernel": "pooler.dense.weight",
    "pooled_dense/bias": "pooler.dense.bias",
}
_LAYER = {
    "self_attention_layer/query": "attention.self.query",
    "self_attention_layer/key": "attention.self.key",
    "self_attention_layer/value": "attention.self.value",
    "self_attention_layer/attention_output": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
    "feedforward_layer_norm": "output.LayerNorm",
}
_LAST = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


@dataclass
class Preset:
    """A preset, opened; `read` loads its weights."""

    tokenizer_directory: Path
    architecture: dict[str, Any]
    read: Callable[[], Iterator[tuple[str, Callable[[], np.ndarray]]]]


def open_preset(preset: str) -> Preset:
    """Reads a preset's configuration and tokenizer; writes the tokenizer into a directory that lives until the exit.

    Raises:
      InputError: no such preset, or it is no BERT.
    """
    _check_directory(preset)
    if (directory := Path(preset).expanduser()).is_dir():
        preset = str(directory.resolve())  # a relative path could also be the name of a preset, which KerasNLP prefers
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # else ~/.keras/keras.json decides, and asks for PyTorch
    import keras_nlp

    known = list(keras_nlp.models.BertBackbone.presets)
    if "://" not in preset and not directory.is_dir() and preset not in known:
        near = difflib.get_close_matches(preset, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise InputError(f"keras-nlp:{preset}: no such preset or directory; {hint}")
    for file, kind in ((_CONFIG, "BertBackbone"), ("tokenizer.json", "BertTokenizer")):
        path = _load(preset, lambda file=file: _file_of(preset, file))
        _check_class(path, _json_of(path), kind)
    _check_special_tokens(path, _json_of(path)["config"])
    backbone = _load(preset, lambda: keras_nlp.models.BertBackbone.from_preset(preset, load_weights=False))
    if type(backbone) is not keras_nlp.models.BertBackbone:
        raise InputError(f"keras-nlp:{preset}: is a {type(backbone).__name__}; only BertBackbone is supported")
    tokenizer = _load(preset, lambda: keras_nlp.models.BertTokenizer.from_preset(preset))
    if type(tokenizer) is not keras_nlp.models.BertTokenizer:
        raise InputError(f"keras-nlp:{preset}: has a {type(tokenizer).__name__}; only BertTokenizer is supported")

    def read() -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        loaded = _load(preset, lambda: keras_nlp.models.BertBackbone.from_preset(preset, dtype="float32"))
        for variable in loaded.weights:
            yield _transformers_name(variable.path), lambda variable=variable: _transformers_layout(variable)

    architecture = {
        "model_type": "bert",
        "vocab_size": backbone.vocabulary_size,
        "hidden_size": backbone.hidden_dim,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.intermediate_dim,
        "hidden_act": "gelu_new",
        "max_position_embeddings": backbone.max_sequence_length,
        "type_vocab_size": backbone.num_segments,
        "layer_norm_eps": float(backbone.get_layer("embeddings_layer_norm").epsilon),
        "hidden_dropout_prob": float(backbone.dropout),
        "attention_probs_dropout_prob": float(backbone.dropout),
        "pad_token_id": int(tokenizer.pad_token_id),
    }
    return Preset(_write_tokenizer(preset, tokenizer, backbone.max_sequence_length), architecture, read)


def preset_files(preset: str, weights: bool) -> list[Path]:
    """Lists the files of a local preset directory, without importing Keras; empty for a name or a hub address."""
    _check_directory(preset)
    directory = Path(os.path.expanduser(preset))
    if not os.path.isdir(directory):
        return []
    patterns = [_CONFIG, "tokenizer.json", "assets/tokenizer/*", *(["model*.weights.*"] if weights else [])]
    return sorted({path for pattern in patterns for path in directory.glob(pattern) if path.is_file()})


def _check_directory(preset: str) -> None:
    directory = Path(os.path.expanduser(preset))
    if not os.path.isdir(directory):  # not Path's own, which raises for a name that is too long
        if "://" not in preset and ("/" in preset or preset.startswith((".", "~"))):
            raise InputError(f"keras-nlp:{preset}: no such directory; give a preset's name or a preset directory")
        return
    path = directory / _CONFIG
    config = _json_of(path)
    if "model_type" in config:
        raise InputError(f"{directory}: is in the transformers layout; drop the prefix: encoder.source: {preset}")
    _check_class(path, config, "BertBackbone")
    if (index := directory / _SHARDS).is_file():
        files = _json_of(index).get("weight_map")
        for name in files.values() if isinstance(files, dict) else ():
            for one in name if isinstance(name, list) else [name]:
                path_inside(directory, one, str(index))


def _json_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not the configuration of a KerasNLP preset ({error}); save it again") from error
    return content


def _file_of(preset: str, name: str) -> Path:
    """Finds a file of a preset, fetched where necessary, as `from_preset` fetches it."""
    from keras_hub.src.utils.preset_utils import get_file

    return Path(get_file(preset, name))


def _check_class(path: Path, content: dict[str, Any], kind: str) -> None:
    """Checks that a preset's JSON names a class of KerasNLP, with plain values and a type of numbers as its settings.

    Raises:
      InputError: it names another class, a class in its settings, or a file to take the vocabulary from.
    """
    known = (f"keras_hub>{kind}", f"keras_nlp>{kind}", kind, None)
    names = [content.get("registered_name"), content.get("class_name")]
    for key, name in zip(("registered_name", "class_name"), names, strict=True):
        if name not in known or names == [None, None]:
            raise InputError(f"{path}: {key} is {json.dumps(name)}; only {kind} is supported")
    settings = content.get("config")
    for key in content.keys() - {"module", "registered_name", "class_name", "config", "assets", "weights"}:
        raise InputError(f"{path}: {key} is not part of a preset; save it again with save_to_preset")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: config is missing; save it again with save_to_preset")
    for key, value in settings.items():
        policy = value.get("config") if isinstance(value, dict) else None
        is_type = (
            key == "dtype"
            and isinstance(policy, dict)
            and str(value.get("module")) in ("keras", "keras.dtype_policies")
            and value.get("class_name") in ("DTypePolicy", "FloatDTypePolicy")
            and value.get("registered_name") is None
            and policy.keys() == {"name"}
            and isinstance(policy["name"], str)
        )
        values = value if isinstance(value, list) else [value]
        plain = all(each is None or isinstance(each, str | int | float) for each in values)
        if not (is_type or plain) or (key == "vocabulary" and isinstance(value, str)):
            raise InputError(
                f"{path}: {key} is {json.dumps(value)[:100]}; expected a plain value, none is made or read"
            )


def _check_special_tokens(path: Path, settings: dict[str, Any]) -> None:
    """Refuses a tokenizer that looks for further special tokens in texts."""
    tokens = settings.get("special_tokens") or []
    own = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", settings.get("oov_token", "[UNK]"))
    for token in (
        (tokens if isinstance(tokens, list) else [tokens]) if settings.get("special_tokens_in_strings") else ()
    ):
        if token not in own:
            raise InputError(f"{path}: special_tokens has {json.dumps(token)[:100]}; only BERT's own are supported")


def _load(preset: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        # Broad, because KerasNLP hands through the errors of Keras, HDF5, kagglehub, huggingface_hub and requests;
        # each of them means that the preset that the user named can't be had.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"keras-nlp:{preset}: could not be loaded ({reason}); check the name and the network, or save it with "
            "save_to_preset elsewhere and give its directory"
        ) from error


def _write_tokenizer(preset: str, tokenizer: Any, max_length: int) -> Path:
    if not tokenizer.split or tokenizer.suffix_indicator != "##":
        raise InputError(
            f"keras-nlp:{preset}: its tokenizer has split={tokenizer.split}, suffix_indicator="
            f"{tokenizer.suffix_indicator!r}; only BERT's own (True, '##') is supported"
        )
    directory = Path(tempfile.mkdtemp(prefix="tfpipe-tokenizer-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in tokenizer.get_vocabulary()), "utf-8")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": bool(tokenizer.lowercase),
        # Written out: transformers would otherwise strip accents wherever it lower-cases, and KerasNLP does not.
        "strip_accents": bool(tokenizer.strip_accents),
        "tokenize_chinese_chars": bool(tokenizer.split_on_cjk),
        "unk_token": tokenizer.oov_token,
        "cls_token": tokenizer.cls_token,
        "sep_token": tokenizer.sep_token,
        "pad_token": tokenizer.pad_token,
        "mask_token": tokenizer.mask_token,
        "model_max_length": max_length,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return directory


def _transformers_name(path: str) -> str:
    """Returns the transformers name of a variable; an unknown path stays, and is then reported as skipped."""
    if path in _EMBEDDINGS:
        return _EMBEDDINGS[path]
    layer, _, rest = path.partition("/")
    part, _, last = rest.rpartition("/")
    number = layer.removeprefix("transformer_layer_")
    if not number.isdigit() or part not in _LAYER or last not in _LAST:
        return path
    return f"encoder.layer.{number}.{_LAYER[part]}.{_LAST[last]}"


def _transformers_layout(variable: Any) -> np.ndarray:
    value = np.asarray(variable.numpy(), dtype=np.float32)
    if variable.path.endswith("/attention_output/kernel"):
        return value.reshape(-1, value.shape[-1]).T
    if variable.path.endswith("/kernel"):
        return value.reshape(value.shape[0], -1).T
    return value.reshape(-1) if variable.path.endswith("/bias") else value
