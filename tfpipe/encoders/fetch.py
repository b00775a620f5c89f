"""The files of an encoder: a source -> a local directory, fetched from the hub where necessary.

Enters: `encoder.source`, see `source.py`. Leaves: a directory in the transformers layout, with its tokenizer files
and, where they are asked for, its weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from pathlib import Path

from tfpipe.encoders.transformers import (
    CONFIG,
    QUANTIZATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    WEIGHTS_INDEX,
    read_json,
    weight_files,
)
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.files import path_inside

VOCABULARIES = (VOCABULARY, TOKENIZER)  # transformers 4 writes both, transformers 5 the second
TOKEN_PATTERNS = (
    CONFIG, VOCABULARY, "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", QUANTIZATION,
)  # fmt: skip
WEIGHT_PATTERNS = (WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors")


def path_in_package(source: str) -> Path:
    """Finds the path that `package:NAME/PATH` means, without importing the package.

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
        path = path_inside(root, relative, source, through_links=False) if relative else root
        if os.path.exists(path):
            return path.resolve()
    places = " or ".join(map(str, roots)) or f"{name}, which is a single module"
    raise InputError(f"{source}: there is no {relative or 'path'} in {places}; check PATH in package:NAME/PATH")


def parse(source: str) -> tuple[str, str]:
    """Splits a source into its kind, `package`, `hf`, `keras-nlp` or `directory`, and the text behind its prefix."""
    kind, separator, reference = source.partition(":")
    if not separator or kind not in ("package", "hf", "keras-nlp"):
        kind, reference = "directory", source
    if "\0" in source or SURROGATES.search(source):
        raise InputError(f"encoder.source {source!r}: nothing can have this name; see `tfpipe config schema`")
    if not reference.strip():
        raise InputError(f"encoder.source {source!r}: nothing behind the prefix; see `tfpipe config schema`")
    return kind, reference


def parse_repository(source: str) -> tuple[str, str | None]:
    """Splits `hf:ORGANISATION/NAME@REVISION` into the repository and the revision."""
    match = re.fullmatch(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", source, flags=re.ASCII)
    if match is None:
        raise InputError(f"{source}: expected hf:ORGANISATION/NAME or hf:ORGANISATION/NAME@REVISION")
    return match[1], match[2]


def directory_of(source: str, weights: bool) -> Path:
    """Finds a local directory with all files that are needed, fetched from the hub if necessary."""
    kind, reference = parse(source)
    if kind == "hf":
        directory = _hub_snapshot(source, weights)
    else:
        directory = path_in_package(source) if kind == "package" else Path(os.path.expanduser(reference))
    if os.path.isfile(directory):  # not Path's own, which raises for a name that is too long
        raise InputError(f"{source}: is a file; encoder.source is the directory that holds {CONFIG} and {WEIGHTS}")
    if not os.path.isdir(directory):
        raise InputError(
            f"{source}: no such directory; expected package:NAME/PATH, hf:ORGANISATION/NAME, keras-nlp:PRESET, or a "
            "local directory in the transformers layout"
        )
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"{directory}: no {CONFIG}; expected the transformers layout: {CONFIG}, {' or '.join(VOCABULARIES)}, "
            f"{TOKENIZER_CONFIG}, {WEIGHTS}"
        )
    if "registered_name" in read_json(directory / CONFIG):
        raise InputError(f"{source}: is a KerasNLP preset; set encoder.source to keras-nlp:{directory}")
    if not _has_vocabulary(directory):
        raise InputError(
            f"{directory}: no {' and no '.join(VOCABULARIES)}; put the encoder's tokenizer files there, or give an "
            "encoder with BERT's tokenizer"
        )
    if weights:
        weight_files(directory, parse_repository(source)[0] if kind == "hf" else None)
    return directory


def _has_vocabulary(directory: Path) -> bool:
    return any((directory / name).is_file() for name in VOCABULARIES)


def _hub_snapshot(source: str, weights: bool) -> Path:
    """Finds the cached snapshot of a hub repository, and downloads the files that are missing.

    The cache comes first: once a branch was resolved to a commit, it stays that commit on this machine, and a run that
    is resumed gets the files that it began with.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    repository, revision = parse_repository(source)
    patterns = [*TOKEN_PATTERNS, *(WEIGHT_PATTERNS if weights else ())]
    try:
        cached = Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=patterns))
        if _is_complete(cached, weights):
            return cached
        revision = cached.name
    except IncompleteSnapshotError as error:  # a download that was cut off, or did not ask for the weights
        revision = Path(error.snapshot_path).name
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InputError(f"{source}: not the name of a repository ({_one_line(error)})") from error
    try:
        # Asked first, because snapshot_download hides a failed look-up behind whatever part of the cache it finds.
        HfApi().model_info(repository, revision=revision)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        # Broad, because the hub's client hands through the errors of httpx and of the system; each of them
        # means that the repository that the user named can't be had.
        raise InputError(f"{source}: {_explain_hub_error(error, repository)}") from error


def _is_complete(directory: Path, weights: bool) -> bool:
    """Tells whether all files are there: False after a download that was cut off or skipped the weights.

    A file that is there is whole. Few repositories have no tokenizer_config.json. The hub is asked for it each time,
    since a cut download looks alike.
    """
    if not all((directory / name).is_file() for name in (CONFIG, TOKENIZER_CONFIG)) or not _has_vocabulary(directory):
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
