"""Where a pretrained BERT encoder comes from: `encoder.source` -> configuration, tokenizer files, weights.

Enters: one of

    package:NAME/PATH             a directory inside an installed package, in the transformers layout
    hf:ORGANISATION/NAME[@REV]    a repository on the Hugging Face hub (safetensors only)
    keras-nlp:PRESET              a KerasNLP preset: its name, its hub address, or a local preset directory
    anything else                 a local directory in the transformers layout

Leaves: an `EncoderSource`, checked, with every name as in transformers' `BertModel`. Whoever builds or fills a model
sees one kind of encoder. Pickles are refused: loading one runs whatever code it holds.

TensorFlow is never imported here; only a `keras-nlp:` source brings it in, through `keras_nlp_source`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe import keras_nlp_source
from tfpipe.errors import InputError
from tfpipe.rundir import sha256_of_file
from tfpipe.transformers_source import (
    CONFIG,
    QUANTIZATION,
    VOCABULARY,
    WEIGHTS,
    WEIGHTS_INDEX,
    Tensors,
    check_architecture,
    check_vocabulary,
    expected_shapes,
    read_json,
    read_safetensors,
    standard_name,
    weight_files,
)

NEEDED_FOR_TOKENS = (CONFIG, VOCABULARY, "tokenizer_config.json")
TOKEN_PATTERNS = (CONFIG, VOCABULARY, "tokenizer*.json", "special_tokens_map.json", QUANTIZATION)
WEIGHT_PATTERNS = (WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors")


@dataclass
class EncoderSource:
    """A pretrained encoder, opened: its shape is known and checked, its weights are read on demand."""

    source: str
    """`encoder.source` as requested"""
    tokenizer_directory: Path
    """holds vocab.txt and tokenizer_config.json"""
    architecture: dict[str, Any]
    """keys of transformers' `BertConfig`; `hidden_act` is "gelu" (exact), "gelu_new" (tanh) or "relu\""""
    where: str
    """file or preset that the weights come from, for messages"""
    read: Callable[[], Tensors] = field(repr=False)
    """yields each tensor's name and a function that loads it"""
    skipped: list[str] = field(default_factory=list)
    """names, as stored, that the last call of `weights` left out"""

    def weights(self) -> dict[str, np.ndarray]:
        """Reads the weights: float32, named as in `BertModel` (`[out, in]` kernels), without the `bert.` prefix.

        The pooler is there if the checkpoint has one, and so are `classifier.weight` and `classifier.bias`. All else
        (language model heads, position ids, layers beyond `num_hidden_layers`) is listed in `skipped`.

        Raises:
          InputError: wrong SHA-256, unreadable file, a tensor that is missing, not finite or of another shape.
        """
        expected = expected_shapes(self.architecture)
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
                f"{missing[0]}; expected the weights of a BERT with {self.architecture['num_hidden_layers']} layers"
            )
        self.skipped = skipped
        return found


def open_source(source: str, sha256: str | None = None) -> EncoderSource:
    """Opens a source: fetches its files if needed, checks its configuration; reads no weights yet.

    Args:
      source: `encoder.source`, see the top of this module.
      sha256: expected SHA-256 of the weights file; checked when the weights are read.

    Raises:
      InputError: the source can't be had, or is no BERT that this program can build.
    """
    kind, reference = _parse(source)
    if kind == "keras-nlp":
        if sha256 is not None:
            raise InputError(
                f"encoder.sha256: not supported for {source}, a preset is several files that KerasNLP fetches by "
                "itself; set it to null (a run's fingerprint covers the files of a local preset directory)"
            )
        preset = keras_nlp_source.open_preset(reference)
        directory, where, read = preset.tokenizer_directory, source, preset.read
        architecture = check_architecture(preset.architecture, where)
    else:
        # The small files first: what is no BERT should not cost the download of its weights.
        directory = _directory(source, weights=False)
        architecture = check_architecture(read_json(directory / CONFIG), str(directory / CONFIG))
        directory = _directory(source, weights=True)
        _refuse_quantized(directory, source)
        files = weight_files(directory)
        if sha256 is not None and len(files) > 1:
            raise InputError(
                f"encoder.sha256: {directory / WEIGHTS_INDEX} spreads the weights over {len(files) - 1} files and one "
                "hash can't cover them; set it to null (a run records the hash of each file)"
            )
        where = str(files[0])

        def read() -> Tensors:
            return read_safetensors(files, sha256)

    check_vocabulary(directory / VOCABULARY, architecture["vocab_size"])
    return EncoderSource(source, directory, architecture, where, read)


def shape_of(source: str) -> tuple[dict[str, Any], Path]:
    """The shape of an encoder and the directory of its tokenizer, without its weights.

    Raises:
      InputError: the source can't be had, is no BERT that this program can build, or is quantized already.
    """
    kind, reference = _parse(source)
    if kind == "keras-nlp":
        preset = keras_nlp_source.open_preset(reference)
        return check_architecture(preset.architecture, source), preset.tokenizer_directory
    directory = _directory(source, weights=False)
    _refuse_quantized(directory, source)
    return check_architecture(read_json(directory / CONFIG), str(directory / CONFIG)), directory


def vocabulary_of(directory: Path) -> list[str]:
    """The word pieces of a tokenizer's directory, in their order."""
    return (directory / VOCABULARY).read_text(encoding="utf-8").splitlines()


def check_reads(architecture: dict[str, Any], setting: str, source: str, max_length: int, *, pairs: bool) -> None:
    """Whether an encoder can read rows of a length, or pairs.

    Args:
      architecture: its shape.
      setting: which setting names it.
      source: its name there.
      max_length: `data.max_length`.
      pairs: whether texts come in pairs.

    Raises:
      InputError: it can't.
    """
    positions, types = architecture["max_position_embeddings"], architecture["type_vocab_size"]
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


def _refuse_quantized(directory: Path, source: str) -> None:
    if (directory / QUANTIZATION).exists():
        raise InputError(
            f"{source}: quantized already ({QUANTIZATION} lies beside its weights), and can't be trained or quantized "
            "again; take the classifier that it was made from: train/, distill/ or prune/ of its run"
        )


def identity(source: str, weights: bool = True) -> dict[str, str]:
    """What a source holds, for a run's fingerprint: reads no weights into memory and imports no TensorFlow.

    A hub repository is identified by its commit. An unknown one is looked up on the hub, its small files are fetched,
    and `open_source` then takes the same commit, so the identity does not change while a run goes on.

    Args:
      source: `encoder.source`.
      weights: False leaves the weights out: config.json and tokenizer files only.

    Returns:
      File -> SHA-256; for the hub, source -> commit; for a KerasNLP preset that is not a directory, the name itself
      (which preset a name means depends on the version of keras-nlp).
    """
    kind, reference = _parse(source)
    if kind == "keras-nlp":
        files = keras_nlp_source.preset_files(reference, weights)
        return {str(path): sha256_of_file(path) for path in files} if files else {source: source}
    if kind == "hf":
        revision = _parse_repository(source)[1]
        if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
            return {source: revision}
        return {source: _directory(source, weights=False).name}
    directory = _directory(source, weights=weights)
    paths = sorted({path for pattern in TOKEN_PATTERNS for path in directory.glob(pattern)})
    return {str(path): sha256_of_file(path) for path in paths + (weight_files(directory) if weights else [])}


def path_in_package(source: str) -> Path:
    """The path that `package:NAME/PATH` means, found without importing the package.

    Raises:
      InputError: the package is not installed, the path is not in it or leads out of it.
    """
    name, _, relative = source.removeprefix("package:").partition("/")
    if not name.isidentifier():
        raise InputError(f"{source}: {name!r} is no package name; write package:NAME/PATH, for example package:a/b/c")
    specification = None
    with contextlib.suppress(ValueError):  # raised for a module that was put together without a specification
        specification = importlib.util.find_spec(name)
    if specification is None:
        raise InputError(f"{source}: package {name} is not installed; pip install the distribution that holds it")
    roots = [Path(root).resolve() for root in specification.submodule_search_locations or []]
    for root in roots:
        path = (root / relative).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{source}: the path leads out of package {name}; give a path inside {root}")
        if path.exists():
            return path
    places = " or ".join(map(str, roots)) or f"{name}, which is a single module"
    raise InputError(f"{source}: there is no {relative or 'path'} in {places}; check PATH in package:NAME/PATH")


def _parse(source: str) -> tuple[str, str]:
    kind, separator, reference = source.partition(":")
    if not separator or kind not in ("package", "hf", "keras-nlp"):
        kind, reference = "directory", source
    if not reference.strip():
        raise InputError(f"encoder.source {source!r}: nothing behind the prefix; see `tfpipe config schema`")
    return kind, reference


def _parse_repository(source: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", source, flags=re.ASCII)
    if match is None:
        raise InputError(f"{source}: expected hf:ORGANISATION/NAME or hf:ORGANISATION/NAME@REVISION")
    return match[1], match[2]


def _directory(source: str, weights: bool) -> Path:
    """A local directory with everything that is needed, fetched from the hub if it has to be."""
    kind, reference = _parse(source)
    if kind == "hf":
        directory = _hub_snapshot(source, weights)
    else:
        directory = path_in_package(source) if kind == "package" else Path(reference).expanduser()
    if directory.is_file():
        raise InputError(f"{source}: is a file; encoder.source is the directory that holds {CONFIG} and {WEIGHTS}")
    if not directory.is_dir():
        raise InputError(
            f"{source}: no such directory; expected package:NAME/PATH, hf:ORGANISATION/NAME, keras-nlp:PRESET, or a "
            "local directory in the transformers layout"
        )
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"{directory}: no {CONFIG}; expected the transformers layout: {', '.join(NEEDED_FOR_TOKENS)}, {WEIGHTS}"
        )
    if "registered_name" in read_json(directory / CONFIG):
        raise InputError(f"{source}: is a KerasNLP preset; set encoder.source to keras-nlp:{directory}")
    for name in NEEDED_FOR_TOKENS:
        if not (directory / name).is_file():
            raise InputError(f"{directory}: no {name}; {_how_to_write_tokenizer(source, directory)}")
    if weights:
        weight_files(directory, _parse_repository(source)[0] if kind == "hf" else None)
    return directory


def _how_to_write_tokenizer(source: str, directory: Path) -> str:
    target, first = directory, ""
    if source.startswith("hf:"):
        target = Path("local")
        first = f"`hf download {_parse_repository(source)[0]} --local-dir {target}`, set encoder.source to {target}, "
    return (
        f"to write it: {first}"
        f"python -c \"from transformers import AutoTokenizer as T; t = T.from_pretrained('{target}'); "
        f"t.save_pretrained('{target}'); t.save_vocabulary('{target}')\", then check do_lower_case in "
        "tokenizer_config.json"
    )


def _hub_snapshot(source: str, weights: bool) -> Path:
    """The cached snapshot of a hub repository; what is missing of it is downloaded.

    The cache comes first: once a branch was resolved to a commit, it stays that commit on this machine, and a run that
    is resumed gets the files that it began with.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, revision = _parse_repository(source)
    try:
        cached = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        if _is_complete(cached, weights):
            return cached
        revision = cached.name
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InputError(f"{source}: not the name of a repository ({_one_line(error)})") from error
    try:
        # Asked first, because snapshot_download hides a failed look-up behind whatever part of the cache it finds.
        HfApi().model_info(repository, revision=revision)
        patterns = [*TOKEN_PATTERNS, *(WEIGHT_PATTERNS if weights else ())]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        # Broad, because the hub's client hands through the errors of requests, urllib3 and the system; each of them
        # means that the repository that the user named can't be had.
        raise InputError(f"{source}: {_explain_hub_error(error, repository)}") from error


def _is_complete(directory: Path, weights: bool) -> bool:
    """False where a download was cut off, or did not ask for the weights. A file that is there is whole."""
    if not all((directory / name).is_file() for name in NEEDED_FOR_TOKENS):
        return False
    if weights:
        try:
            weight_files(directory)
        except InputError:
            return False
    return True


def _explain_hub_error(error: Exception, repository: str) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated; accept its terms at {page}, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no such revision; see {page}/commits/main"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository ({page}), or a private one; check the name, or run `hf auth login` or set HF_TOKEN"
    bring = (
        f"run `hf download {repository} --local-dir DIRECTORY` where there is a network, bring it here, and set "
        "encoder.source to DIRECTORY"
    )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"not (all) in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; unset it, or {bring}"
    return f"could not be downloaded ({_one_line(error.__cause__ or error)}); try again, or {bring}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
