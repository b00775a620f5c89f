"""Folders that transformers 5 wrote (`transformers_5/make.py`): its ids, and those of the installed transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_weights
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from tfpipe.encoders.source import identity, open_source, vocabulary_of
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

FOLDERS = Path(__file__).parent / "transformers_5"
NAMES = ["uncased", "cased", "accents", "generic"]


def answers(tokenizer: Tokenizer, texts: list[str], pairs: list[str] | None = None) -> dict[str, list]:
    ids, types = tokenizer.encode(*filter(None, (texts, pairs)))
    return {"input_ids": ids.to_list(), "token_type_ids": types.to_list()}


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers_5(name, tmp_path):
    """As recorded, and as the installed release has them. For transformers 4 see formats/test_other_loaders.py."""
    golden = json.loads((FOLDERS / name / "ids.json").read_text(encoding="utf-8"))
    assert golden["transformers"].startswith("5.")
    texts, length = golden["texts"], golden["max_length"]
    settings = TokenizerSettings.read(FOLDERS / name)
    tokenizer = Tokenizer(settings, length)
    for answer, expected in (
        (answers(tokenizer, texts), golden["single"]),
        (answers(tokenizer, texts, texts[::-1]), golden["pair"]),
    ):
        # Its generic class has no token types: a pair has none but 0 for a model then.
        assert ("token_type_ids" in expected) == (name != "generic")
        assert {key: answer[key] for key in expected} == expected

    settings.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert TokenizerSettings.read(tmp_path) == settings
    for folder in (tmp_path, FOLDERS / name):
        reference = AutoTokenizer.from_pretrained(folder)
        for pairs in (None, texts[::-1]):
            expected = reference(texts, pairs, truncation=True, max_length=length, return_token_type_ids=True)
            assert answers(tokenizer, texts, pairs) == {key: expected[key] for key in ("input_ids", "token_type_ids")}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_an_encoder_that_transformers_5_saved_is_opened(tmp_path, shards, prefix):
    """Its config.json says `dtype`, leaves `position_embedding_type` out, and the names of tensors are as before."""
    encoder = Path(shutil.copytree(FOLDERS / "uncased", tmp_path / "encoder"))
    config = json.loads((encoder / "config.json").read_text())
    weights = tiny_weights(config)
    named = {prefix + name: tensor for name, tensor in weights.items()}
    if shards == 1:
        save_file(named, encoder / "model.safetensors", metadata={"format": "pt"})
    else:
        files = [f"model-{shard + 1:05}-of-{shards:05}.safetensors" for shard in range(shards)]
        places = {name: files[index % shards] for index, name in enumerate(named)}
        for file in files:
            save_file({name: named[name] for name in named if places[name] == file}, encoder / file, {"format": "pt"})
        index = {"metadata": {"total_parameters": 1, "total_size": 4}, "weight_map": places}
        (encoder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    opened = open_source(str(encoder))
    found = opened.weights()
    assert opened.architecture.vocab_size == len(vocabulary_of(encoder)) and found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    assert str(encoder / "tokenizer.json") in identity(str(encoder))
