"""A configuration as a YAML file: read with overrides, written with every default, its errors in words.

Enters: one YAML file and `--set a.b=VALUE` overrides. Leaves: a `Config`. An unknown key names the nearest valid one.
"""

from __future__ import annotations

import difflib
import reprlib
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tfpipe.config import strict_yaml
from tfpipe.config.run import Config
from tfpipe.errors import InputError

_received = reprlib.Repr()  # of what may be large, or hold large things many times over
_received.maxlevel, _received.maxstring, _received.maxother, _received.maxlong = 2, 200, 200, 200


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads a configuration and applies `a.b=VALUE` overrides (VALUE is YAML).

    Raises:
      InputError: the file can't be read, is not YAML, or a setting is unknown or out of range.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(strict_yaml.MOST_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: can't read the configuration ({_reason(error)}); give the path of a YAML file"
        ) from error
    tree = read_yaml(text, where=f"{path}: ")
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(tree).__name__}; see `config schema`")
    return config_of(tree, overrides, where=str(path))


def config_of(tree: dict[str, Any], overrides: list[str] | None, where: str) -> Config:
    """Applies overrides to a mapping and turns it into a `Config`; `where` names its origin in errors."""
    for override in overrides or []:
        _apply_override(tree, override)
    return parse_config(tree, where)


def parse_config(tree: dict[str, Any], where: str) -> Config:
    """Turns a mapping into a `Config`; `where` names its origin in errors."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"{where}: {problems}") from None


def setting(config: Config, dotted: str) -> Any:
    """Returns the value at a dotted path such as `data.split`, as plain JSON types; None where a section is off."""
    value: Any = config.model_dump(mode="json")
    for key in dotted.split("."):
        if value is None:
            return None
        value = value[key]
    return value


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Takes sections apart: a setting each, by its dotted path. A mapping that is itself a value stays whole.

    Args:
      settings: of a configuration, as plain JSON types; keys may be dotted.
    """
    found: dict[str, Any] = {}
    for path, value in settings.items():
        if isinstance(value, dict) and _section_at(path.split(".")) is not None:
            found |= flattened({f"{path}.{name}": each for name, each in value.items()})
        else:
            found[path] = value
    return found


def dump_config(config: Config) -> str:
    """Writes the configuration as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def read_yaml(text: str, where: str) -> Any:
    """Reads a value from YAML; `where` stands before an error."""
    try:
        return strict_yaml.read(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where}not valid YAML: {reason}") from error


_SIGNS = frozenset(string.punctuation) - {"~"}  # which is null


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, separator, raw = override.partition("=")
    if not separator or not dotted:
        raise InputError(f"--set {override}: expected a.b=VALUE, for example --set train.epochs=1")
    # One sign, such as a separator, stands for itself, whatever it means in YAML.
    value = raw if raw in _SIGNS else read_yaml(raw, where=f"--set {override}: the value is ")
    *parents, last = dotted.split(".")
    node = tree
    for key in parents:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise InputError(f"--set {override}: {key} is a value, not a section; see `tfpipe config schema`")
    node[last] = value


def _explain(problem: dict[str, Any]) -> str:
    # Where a setting may be one of several types, pydantic names the type too: `dict[str,float]`.
    keys = [str(key) for key in problem["loc"] if not str(key).startswith(("literal[", "dict["))]
    location = ".".join(key if key.isprintable() else repr(key) for key in keys)
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        valid = _valid_keys(parents)
        nearest = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"valid here: {', '.join(valid)}"
        return f"{location}: unknown setting; {hint}"
    if problem["type"] == "missing":
        return f"{location}: this setting is required; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        message = {
            "name": "expected letters, digits, '.', '_' and '-', a letter or digit first",
            "sha256": "expected the 64 hexadecimal digits of a SHA-256, in lower case",
        }[keys[-1]]
    if problem["type"] == "model_type":
        message = "expected a section, that is, a mapping of settings"
    elif problem["type"] == "string_type" and not isinstance(problem["input"], (dict, list, type(None))):
        message = "expected text; put it in quotes"
    received = "" if isinstance(problem["input"], dict) else f" (received {_received.repr(problem['input'])})"
    return f"{location}: {message}{received}" if location else message


def _valid_keys(parents: list[Any]) -> list[str]:
    section = _section_at(parents)
    return list(section.model_fields)


def _section_at(keys: Sequence[Any]) -> type[BaseModel] | None:
    """Finds the class of the section at a path; None: a value is there."""
    section: type[BaseModel] | None = Config
    for key in keys:
        annotation = section.model_fields[key].annotation if section and key in section.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return section
