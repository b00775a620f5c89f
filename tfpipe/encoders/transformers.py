"""A BERT on disk in the transformers layout: `config.json` and safetensors, read and checked.

Enters: a local directory. Leaves: the keys of transformers' `BertConfig` that decide its computation, and its tensors
under the names of `BertModel`, one at a time. Wrong content is an `InputError` that names the file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.errors import InputError
from tfpipe.files import path_inside, sha256_of_file

CONFIG = "config.json"
VOCABULARY = "vocab.txt"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
QUANTIZATION = "quantization.safetensors"
"""beside the weights of a classifier that tfpipe quantized"""

_OTHER_WEIGHTS = ("tf_model*.h5", "flax_model*.msgpack", "bert_model.ckpt*", "*.onnx", "*.gguf")
# Keeps every name: transformers' own classes would drop a head, or add a pooler with random weights. `weights_only`
# runs no code of the pickle.
_CONVERT = (
    'python -c "import pathlib, sys, torch; from safetensors.torch import save_file; p = pathlib.Path(sys.argv[1]); '
    "save_file({n: t.contiguous().clone() for f in p.glob('pytorch_model*.bin') for n, t in torch.load(f, "
    "map_location='cpu', weights_only=True).items()}, p / 'model.safetensors', {'format': 'pt'})\""
)

FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
Tensors = Iterator[tuple[str, Callable[[], np.ndarray]]]
"""name as stored, and a function that loads the tensor"""


def weight_files(directory: Path, origin: str | None = None) -> list[Path]:
    """Lists the safetensors of a directory: one file, or the index and its shards.

    Args:
      directory: local directory.
      origin: the model's name in transformers, where that is not the directory; for the message only.

    Raises:
      InputError: there is no file, or the index names a missing one.
    """
    if os.path.isfile(directory / WEIGHTS):
        return [directory / WEIGHTS]
    index = directory / WEIGHTS_INDEX
    if not index.is_file():
        raise InputError(_no_weights(directory, origin))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: weight_map is missing; expected tensor name -> file; get the file again")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if not os.path.isfile(path_inside(directory, name, str(index))):
            raise InputError(f"{index}: names {name}, which is not in its directory; get the missing file")
    return [index, *(directory / name for name in shards)]


def _no_weights(directory: Path, origin: str | None) -> str:
    """Explains which weights a directory has instead of safetensors, and how to convert them."""
    others = sorted(path.name for pattern in _OTHER_WEIGHTS for path in directory.glob(pattern))
    if others and not any(directory.glob("pytorch_model*.bin")):
        return (
            f"{directory}: no {WEIGHTS}, but {others[0]}, which is not read; get the safetensors that transformers' "
            "PyTorch classes save, or another encoder"
        )
    where, first, then = str(directory), "", ""
    if origin is not None:  # only its small files are here
        where = "converted"
        first = f"`hf download {origin} --local-dir {where}`, then "
        then = f", then set encoder.source to {where}"
    return (
        f"{directory}: no {WEIGHTS}. A pickle (pytorch_model.bin) is refused, since loading one can run code; to "
        f"convert it, where PyTorch 2.6 or later and safetensors are installed: {first}`{_CONVERT} "
        f"{shlex.quote(where)}`{then}"
    )


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
                if (file.metadata() or {}).get("format") == "tf":
                    raise InputError(
                        f"{path}: format is 'tf', its tensors have TensorFlow's names; get the file that transformers' "
                        "PyTorch classes save"
                    )
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
    """Returns a tensor's name as today's `BertModel` has it."""
    # gamma and beta are TensorFlow's names, which the first conversions to PyTorch kept.
    name = re.sub(r"\bLayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix("bert."))
    return re.sub(r"\bLayerNorm\.beta$", "LayerNorm.bias", name)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file, or raises an `InputError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}); get the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; get the file again")
    return value
