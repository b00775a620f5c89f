"""The sources of pretrained BERT encoders: `encoder.source` -> configuration, tokenizer files, weights.

Enters: one of

    package:NAME/PATH             a directory inside an installed package, in the transformers layout
    hf:ORGANISATION/NAME[@REV]    a repository on the Hugging Face hub (safetensors only)
    keras-nlp:PRESET              a KerasNLP preset: its name, its hub address, or a local preset directory
    anything else                 a local directory in the transformers layout

Leaves: an `EncoderSource`, checked, with every name as in transformers' `BertModel`. Code that builds or fills a model
sees one kind of encoder. Pickles are refused: loading a pickle runs the code that it holds.

TensorFlow is never imported here; only a `keras-nlp:` source brings it in, through `keras_nlp.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfpipe.encoders import keras_nlp as keras_nlp_source
from tfpipe.encoders.architecture import Architecture, check_architecture
from tfpipe.encoders.fetch import TOKEN_PATTERNS, directory_of, parse, parse_repository
from tfpipe.encoders.transformers import (
    CONFIG,
    QUANTIZATION,
    WEIGHTS_INDEX,
    Tensors,
    read_json,
    read_safetensors,
    standard_name,
    weight_files,
)
from tfpipe.encoders.vocabulary import check_vocabulary, read_vocabulary
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.provenance import package_versions


@dataclass
class EncoderSource:
    """A pretrained encoder, opened: its shape is known and checked, its weights are read on demand."""

    source: str
    """`encoder.source` as requested"""
    tokenizer_directory: Path
    """holds vocab.txt, tokenizer.json, or both, and the files beside them"""
    architecture: Architecture
    """its shape; `hidden_act` is "gelu" (exact), "gelu_new" (tanh) or "relu\""""
    where: str
    """file or preset that the weights come from, for messages"""
    read: Callable[[], Tensors] = field(repr=False)
    """yields each tensor's name and a function that loads it"""
    skipped: list[str] = field(default_factory=list)
    """names, as stored, that the last call of `weights` left out"""

    def weights(self) -> dict[str, np.ndarray]:
        """Reads the weights: float32, named as in `BertModel` (`[out, in]` kernels), without the `bert.` prefix.

        The pooler, `classifier.weight` and `classifier.bias` are there if the checkpoint has them. All else (language
        model heads, position ids, layers beyond `num_hidden_layers`) is listed in `skipped`.

        Raises:
          InputError: wrong SHA-256, unreadable file, a tensor that is missing, not finite or of another shape.
        """
        expected = self.architecture.tensor_shapes()
        found: dict[str, np.ndarray] = {}
        skipped: list[str] = []
        for stored_name, load in self.read():
            name = standard_name(stored_name)
            if name not in expected and name not in ("classifier.weight", "classifier.bias"):
                skipped.append(stored_name)
                continue
            if name in found:
                raise InputError(f"{self.where}: tensor {name} is there twice, under two names; remove one of them")
            tensor = np.ascontiguousarray(load(), dtype=np.float32)
            if name in expected and tensor.shape != expected[name]:
                raise InputError(
                    f"{self.where}: tensor {stored_name} has shape {list(tensor.shape)}, the configuration asks for "
                    f"{list(expected[name])}; the two belong to different models: get both from one place"
                )
            if not np.isfinite(tensor).all():
                raise InputError(f"{self.where}: tensor {stored_name} holds NaN or infinity; get the file again")
            found[name] = tensor
        missing = [name for name in expected if name not in found and not name.startswith("pooler.")]
        if missing:
            raise InputError(
                f"{self.where}: {len(missing)} of {len(expected)} tensors of the encoder are missing, the first is "
                f"{missing[0]}; expected the weights of a BERT with {self.architecture.num_hidden_layers} layers"
            )
        self.skipped = skipped
        return found


def open_source(source: str, sha256: str | None = None, *, section: str = "encoder") -> EncoderSource:
    """Opens a source: fetches its files if needed, checks its configuration; reads no weights yet.

    Args:
      source: `encoder.source`, see the top of this module.
      sha256: expected SHA-256 of the weights file; checked when the weights are read.
      section: of the configuration, where both stand; for messages.

    Raises:
      InputError: the source can't be had, or is no BERT that this program can build.
    """
    kind, reference = parse(source)
    if kind == "keras-nlp":
        if sha256 is not None:
            raise InputError(
                f"{section}.sha256: not supported for {source}, a preset is several files that KerasNLP fetches by "
                "itself; set it to null (a run's fingerprint covers the files of a local preset directory)"
            )
        preset = keras_nlp_source.open_preset(reference)
        directory, where, read = preset.tokenizer_directory, source, preset.read
        architecture = check_architecture(preset.architecture, where)
    else:
        # The small files first: what is no BERT should not cost the download of its weights.
        architecture, _ = shape_of(source)
        directory = directory_of(source, weights=True)
        files = weight_files(directory)
        if sha256 is not None and len(files) > 1:
            raise InputError(
                f"{section}.sha256: {directory / WEIGHTS_INDEX} spreads the weights over {len(files) - 1} files and "
                "one hash can't cover them; set it to null (a run records the hash of each file)"
            )
        where = str(files[0])

        def read() -> Tensors:
            return read_safetensors(files, sha256, f"{section}.sha256")

    check_vocabulary(directory, architecture.vocab_size)
    return EncoderSource(source, directory, architecture, where, read)


def shape_of(source: str) -> tuple[Architecture, Path]:
    """Returns the shape of an encoder and the directory of its tokenizer, without its weights.

    Raises:
      InputError: the source can't be had, is no BERT that this program can build, or is quantized already.
    """
    kind, reference = parse(source)
    if kind == "keras-nlp":
        preset = keras_nlp_source.open_preset(reference)
        return check_architecture(preset.architecture, source), preset.tokenizer_directory
    directory = directory_of(source, weights=False)
    if (directory / QUANTIZATION).exists():
        raise InputError(
            f"{source}: quantized already ({QUANTIZATION} lies beside its weights), and can't be trained or quantized "
            "again; take the classifier that it was made from: train/, distill/ or prune/ of its run"
        )
    return check_architecture(read_json(directory / CONFIG), str(directory / CONFIG)), directory


def vocabulary_of(directory: Path) -> list[str]:
    """Lists the word pieces of a tokenizer's directory, in their order."""
    return list(read_vocabulary(directory)[1])


def check_reads(architecture: Architecture, setting: str, source: str, max_length: int, *, pairs: bool) -> None:
    """Checks that an encoder can read rows of a length, or pairs.

    Args:
      architecture: its shape.
      setting: the setting that names it.
      source: its name there.
      max_length: `data.max_length`.
      pairs: whether texts come in pairs.

    Raises:
      InputError: the encoder can't.
    """
    positions, types = architecture.max_position_embeddings, architecture.type_vocab_size
    if max_length > positions:
        raise InputError(
            f"data.max_length is {max_length}, but {setting} {source} has {positions} positions; set data.max_length "
            f"to {positions} or less"
        )
    if pairs and types < 2:
        raise InputError(
            f"data.text_pair_column is set, but {setting} {source} has {types} token type; pairs need an encoder with "
            "two"
        )


def identity(source: str, weights: bool = True) -> dict[str, str]:
    """Identifies the content of a source for a run's fingerprint, without its weights in memory and without TensorFlow.

    A hub repository is identified by its commit. An unknown commit is looked up on the hub, and its small files are
    fetched. `open_source` then takes the same commit, so the identity does not change during a run.

    Args:
      source: `encoder.source`.
      weights: False leaves the weights out: config.json and tokenizer files only.

    Returns:
      File -> SHA-256; for the hub, source -> commit; for a KerasNLP preset that is not a directory, the name and the
      version of keras-nlp, which decides what the name means.
    """
    kind, reference = parse(source)
    if kind == "keras-nlp":
        files = keras_nlp_source.preset_files(reference, weights)
        if not files:
            return {source: f"{source} of keras-nlp {package_versions().get('keras-nlp')}"}
        return {str(path): sha256_of_file(path) for path in files}
    if kind == "hf":
        revision = parse_repository(source)[1]
        if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
            return {source: revision}
        return {source: directory_of(source, weights=False).name}
    directory = directory_of(source, weights=weights)
    paths = sorted({path for pattern in TOKEN_PATTERNS for path in directory.glob(pattern)})
    return {str(path): sha256_of_file(path) for path in paths + (weight_files(directory) if weights else [])}
