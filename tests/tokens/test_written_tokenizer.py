"""The tokenizer folder that tfpipe writes, opened by other loaders: ids of long texts, pairs and odd Unicode."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from conftest import write_encoder
from formats.test_other_loaders import answered
from test_tokenizer import EDGE_TEXTS, alphabet_settings
from transformers import AutoTokenizer, BertTokenizer

from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.model.classifier import float_model, load_classifier
from tfpipe.tasks import TASKS
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

LENGTH = 12
WORDS = "fine film poor bad good story actors plot ünïcödé 字字 ΑΣ don't [MASK] zzzz".split()


def texts(seed: int) -> list[str]:
    """Texts shorter and much longer than LENGTH, and the odd ones."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=count)) for count in (0, 1, 5, 10, 11, 40, 700)] + EDGE_TEXTS


def settings_of(kind: str, tmp_path) -> TokenizerSettings:
    if kind == "alphabet":
        return alphabet_settings()
    cased = {"do_lower_case": False, "strip_accents": False} if kind == "cased" else {}
    return TokenizerSettings(TokenizerSettings.read(write_encoder(tmp_path / "encoder")).vocabulary, **cased)


@pytest.mark.parametrize("kind", ["uncased", "cased", "alphabet"])
@pytest.mark.parametrize("only", ["all", "tokenizer.json", "vocab.txt"])
def test_other_loaders_give_the_same_ids(kind, only, tmp_path):
    settings, folder = settings_of(kind, tmp_path), tmp_path / "folder"
    settings.write(folder, LENGTH)
    assert TokenizerSettings.read(folder) == settings
    tokenizer, first, second = Tokenizer(settings, LENGTH), texts(0), texts(1)[::-1]
    for other in {"tokenizer.json": ["vocab.txt"], "vocab.txt": ["tokenizer.json"]}.get(only, []):
        (folder / other).unlink()
    for loaded in (AutoTokenizer.from_pretrained(folder), BertTokenizer.from_pretrained(folder)):
        assert loaded.model_max_length == LENGTH
        for pairs in (None, second):
            ids, types = tokenizer.encode(*filter(None, (first, pairs)))
            found = loaded(first, pairs, truncation=True)
            assert found["input_ids"] == ids.to_list() and found["token_type_ids"] == types.to_list()
            assert max(map(len, found["input_ids"])) == LENGTH
    if only != "vocab.txt":
        alone = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert [each.ids for each in alone.encode_batch(first)] == tokenizer.encode(first)[0].to_list()
        pairs = list(zip(first, second, strict=True))
        assert [each.ids for each in alone.encode_batch(pairs)] == tokenizer.encode(first, second)[0].to_list()


def test_the_same_settings_give_the_same_bytes(tmp_path):
    settings = settings_of("uncased", tmp_path)
    for name in ("one", "two"):
        settings.write(tmp_path / name, LENGTH)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_special_tokens_of_other_names_keep_their_ids(tmp_path):
    names = {"unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<m>"}
    pieces = ("<s>", "a", "b", "<m>", "</s>", "##b", "<unk>", "<pad>")
    settings = TokenizerSettings(pieces, **names)
    settings.write(tmp_path, 6)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    rows = ["a ab c", "<m> b </s> a b a b a", ""]
    assert loaded(rows, truncation=True)["input_ids"] == Tokenizer(settings, 6).encode(rows)[0].to_list()
    assert loaded.all_special_ids and sorted(loaded.all_special_ids) == [0, 3, 4, 6, 7]
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert {each["content"]: each["id"] for each in written["added_tokens"]} == {
        name: pieces.index(name) for name in names.values()
    }


def test_a_trained_classifier_has_the_length_of_its_texts(tiny_run, tmp_path):
    config, run = tiny_run
    for stage in ("train", "prune", "quantize"):
        folder = tmp_path / stage
        shutil.copytree(run / stage, folder)
        loaded = AutoTokenizer.from_pretrained(folder)
        length = config.data.max_length
        assert loaded.model_max_length == length
        text = "a fine film " * 300
        ids = loaded(text, truncation=True)["input_ids"]
        assert ids == Tokenizer(TokenizerSettings.read(folder), length).encode([text])[0].to_list()[0]
        assert len(ids) == length


ANSWERS = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

folder, rows = sys.argv[1], json.load(open(sys.argv[2]))
model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
assert not any(report.values()), report
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    inputs = [tokenizer(*row, truncation=True, return_tensors="pt") for row in rows]
    logits = [model(**each).logits[0].tolist() for each in inputs]
classify = pipeline("text-classification", folder, truncation=True)
said = [classify({"text": row[0], "text_pair": row[1]} if len(row) == 2 else row[0]) for row in rows]
said = [each[0] if isinstance(each, list) else each for each in said]
print(json.dumps([logits, said]))
"""


@pytest.mark.slow
def test_transformers_answers_texts_and_pairs_as_tfpipe_does(tiny_run, pytorch, tmp_path):
    """The folder of `train`, opened by transformers on PyTorch: texts that it cuts, pairs, odd Unicode."""
    _, run = tiny_run
    long = [f"a poor film {text} good" * (2 if len(text) > 1000 else 60) for text in EDGE_TEXTS]
    alone = [[text] for text in (*texts(0), *long)]
    # transformers takes an empty second text for none, where it is given one pair at a time.
    pairs = [[first, second] for (first,), (second,) in zip(alone, alone[::-1], strict=True) if second]
    (tmp_path / "rows.json").write_text(json.dumps([*alone, *pairs]))
    logits, said = answered([pytorch, "-c", ANSWERS, run / "train", tmp_path / "rows.json"])

    classifier = load_classifier(run / "train")
    model, tokenizer = float_model(classifier), Tokenizer(TokenizerSettings.read(run / "train"), 32)
    columns = [zip(*rows, strict=True) for rows in (alone, pairs)]
    batches = [tokenizer.dense(*(tf.constant(column) for column in rows)) for rows in columns]
    expected = np.concatenate([model(batch, training=False).numpy() for batch in batches])
    assert np.abs(np.array(logits) - expected).max() <= 1e-5
    labels = [classifier.labels[index] for index in expected.argmax(axis=1)]
    assert [each["label"] for each in said] == labels and len(set(labels)) == 2
    probability = TASKS[classifier.task].probabilities(expected).max(axis=1)
    assert np.abs([each["score"] for each in said] - probability).max() <= 1e-5

    served = load_saved_model(run / "export" / "dense" / "saved_model").signatures["serving_default"]
    answer = served(text=tf.constant([text for (text,) in alone]))
    assert np.abs(logits[: len(alone)] - answer["logits"]).max() <= 1e-5
    assert [label.decode() for label in answer["label"].numpy()] == labels[: len(alone)]
