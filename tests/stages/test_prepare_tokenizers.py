"""Encoders whose tokenizer files are not the usual ones: what `prepare` says of them, and what it leaves."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import tiny_weights, write_reviews
from safetensors.numpy import save_file
from tokens.test_transformers_5 import FOLDERS

from tfpipe.config.file import parse_config
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import prepare
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


@pytest.fixture
def prepared_for(tmp_path, capsys):
    """A function that prepares reviews for an encoder, and returns the tokenizer's directory and what was printed."""

    def run(encoder, **data):
        source = write_reviews(tmp_path / "reviews.csv", 200)
        settings = {"source": str(source), "max_length": 32} | data
        stage = StageDirectory("prepare", tmp_path / "prepare", {})
        stage.path.mkdir()
        prepare.run(parse_config({"name": "x", "data": settings, "encoder": {"source": str(encoder)}}, "test"), stage)
        return stage.path / "tokenizer", capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", ["uncased", "cased", "generic"])
def test_an_encoder_of_transformers_5(prepared_for, tmp_path, name):
    encoder = shutil.copytree(FOLDERS / name, tmp_path / "encoder")
    weights = tiny_weights(json.loads((encoder / "config.json").read_text()))
    save_file(weights, encoder / "model.safetensors", metadata={"format": "pt"})
    tokenizer, printed = prepared_for(encoder)
    files = {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in tokenizer.iterdir()} == files
    assert TokenizerSettings.read(tokenizer) == TokenizerSettings.read(encoder)
    assert ("word pieces" in printed) == (name == "uncased")  # whose vocabulary is the cased one's


def test_a_cased_vocabulary_without_tokenizer_config(prepared_for, tiny_encoder, tmp_path):
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (encoder / "tokenizer_config.json").unlink()
    pieces = (encoder / "vocab.txt").read_text().splitlines()
    pieces = [piece.title() if piece.isalpha() and len(piece) > 2 else piece for piece in pieces]
    (encoder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer, printed = prepared_for(encoder)
    assert TokenizerSettings.read(tokenizer).do_lower_case
    assert f"{encoder}: no tokenizer_config.json, so texts are lower-cased and lose their accents" in printed
    lost = sum(piece != piece.lower() for piece in pieces[5:])
    assert (
        f"warning: {encoder}: {lost} of {len(pieces) - 5} word pieces ({lost / (len(pieces) - 5):.0%}) can" in printed
    )


def test_lower_case_that_was_asked_for_is_not_warned_about(prepared_for, tiny_encoder, tmp_path):
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (encoder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert "warning: " in prepared_for(encoder)[1]
    shutil.rmtree(tmp_path / "prepare")
    assert "capital letter" not in prepared_for(encoder, cleaning={"lower_case": True})[1]
