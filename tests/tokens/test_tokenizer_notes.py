"""Lines on a tokenizer whose vocabulary and normalization do not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tfpipe.tokens.tokenizer_notes import notes_on
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[Unused2]")
CASED = TokenizerSettings((*SPECIAL, "Paris", "Berlin", "film", "##S", "was", "the", "a", "É"), do_lower_case=False)
UNCASED = TokenizerSettings((*SPECIAL, "paris", "film", "##s", "the", "a", "!", "汉", "ß", "\u2028"))
ACCENTS = TokenizerSettings((*SPECIAL, "über", "film", "##ü", "the", "schön"), strip_accents=False)


def notes(settings: TokenizerSettings, directory: Path) -> list[str]:
    settings.write(directory)
    found = list(notes_on(directory, settings))
    assert all("\n" not in note and str(directory) in note for note in found)
    return found


@pytest.mark.parametrize("settings", [CASED, UNCASED, ACCENTS])
def test_nothing_is_said_of_what_belongs_together(tmp_path, settings):
    assert notes(settings, tmp_path) == []


def test_a_cased_vocabulary_that_is_lower_cased(tmp_path):
    (line,) = notes(replace(CASED, do_lower_case=True), tmp_path)
    assert "warning: " in line and "4 of 10 word pieces (40%) can never occur, as texts are lower-cased" in line
    (line,) = notes(replace(CASED, strip_accents=True), tmp_path)
    assert "1 of 10 word pieces (10%) can never occur, as texts are stripped of accents" in line


def test_an_uncased_vocabulary_with_accents_that_are_stripped(tmp_path):
    (line,) = notes(replace(ACCENTS, strip_accents=None), tmp_path)
    assert "3 of 7 word pieces (43%) can never occur" in line


def test_an_uncased_vocabulary_that_is_not_lower_cased(tmp_path):
    (line,) = notes(replace(UNCASED, do_lower_case=False), tmp_path)
    assert "no word piece has a capital letter, but texts are not lower-cased: words with one become [UNK]" in line


@pytest.mark.parametrize("cased", [False, True])
def test_an_old_folder_is_lower_cased_as_transformers_does(tmp_path, cased):
    """Equal ids without tokenizer_config.json: see test_tokenizer_files.py."""
    (CASED if cased else UNCASED).write(tmp_path)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).unlink()
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]"}))
    settings = TokenizerSettings.read(tmp_path)
    assert settings.do_lower_case
    first, *more = notes_on(tmp_path, settings)
    assert "no tokenizer_config.json, so texts are lower-cased and lose their accents" in first
    assert len(more) == cased
