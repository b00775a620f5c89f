"""Golden requests: written at the export, read and checked anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfpipe.artifacts import format_named
from tfpipe.errors import InputError
from tfpipe.evaluate import golden
from tfpipe.evaluate.golden import HARD_TEXTS
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

HEAD = '{"format": 1, "task": "single_label", "limits": {"label_agreement": 0.9}, "recorded_on": "", "tfpipe": ""}\n'
LINE = '{"text": "a", "input_ids": [7], "token_type_ids": [0], "logits": [0, 1]}\n'


@pytest.fixture(scope="module")
def tokenizer(tiny_run):
    return Tokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32)


@pytest.mark.parametrize("variant", ["dense", "pruned", "int8"])
@pytest.mark.parametrize("place", ["onnx/golden.jsonl", "saved_model/assets.extra/golden.jsonl"])
def test_every_artifact_has_its_golden_file(tiny_run, variant, place):
    head, requests, logits = golden.read(tiny_run[1] / "export" / variant / place)
    assert head["variant"] == variant and head["labels"] == ["negative", "positive"]
    assert head["artifact"] == place.split("/")[0]
    assert ("label_agreement" in head["limits"]) == (variant == "int8")
    assert len(requests) == len(logits) == golden.REAL_ROWS + len(HARD_TEXTS) and np.isfinite(logits).all()
    assert requests.texts[golden.REAL_ROWS :] == list(HARD_TEXTS.values())  # invalid UTF-8 and NUL included
    lengths = requests.tokens["attention_mask"].sum(axis=1)
    assert lengths.max() == 32 and lengths.min() == 2  # 5,000 words are cut, nothing is [CLS] [SEP]


def test_real_rows_cover_the_lengths_that_occur(tiny_run, tokenizer):
    table = TokenTable.open(tiny_run[1] / "prepare" / "test")
    requests = golden.golden_requests(table, tokenizer, pairs=False)
    lengths = requests.tokens["attention_mask"].sum(axis=1)[: golden.REAL_ROWS]
    assert lengths[0] == table.lengths.min() and lengths[-1] == table.lengths.max()
    assert sorted(lengths) == list(lengths)
    known = set(table.texts(range(table.num_rows)))
    assert all(text.decode() in known for text in requests.texts[: golden.REAL_ROWS])


def test_hard_texts_of_pairs(tokenizer):
    requests = golden.hard_requests(tokenizer, pairs=True)
    assert requests.text_pairs == [*requests.texts[1:], requests.texts[0]]
    assert requests.tokens["token_type_ids"].max() == 1


def test_a_part_is_padded_to_its_own_longest(tokenizer):
    requests = golden.tokenized([b"a", b"a film that is good", b"the"], None, tokenizer)
    part = requests.part(0, 1)
    assert part.texts == [b"a"] and {value.shape for value in part.tokens.values()} == {(1, 3)}
    assert {value.shape for value in requests.part(1, 3).tokens.values()} == {(2, 7)}


def test_what_is_written_is_read_back(tmp_path, tiny_run, tokenizer):
    from tfpipe.model.classifier import load_classifier

    requests = golden.hard_requests(tokenizer, pairs=False)
    classifier = load_classifier(tiny_run[1] / "train")
    onnx = format_named("onnx")
    artifact = Path(shutil.copytree(tiny_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx"))
    golden.record(onnx, artifact, requests, classifier, "dense")
    file = artifact / golden.FILE
    _, again, logits = golden.read(file)
    assert again.texts == requests.texts and again.text_pairs is None
    for name, value in requests.tokens.items():
        assert np.array_equal(again.tokens[name], value * requests.tokens["attention_mask"]), name
    assert np.abs(onnx.code.load(artifact)[0].ask(again) - logits).max() <= 1e-5
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]]
    assert [line["label"] for line in lines] == [
        ["negative", "positive"][int(np.argmax(line["logits"]))] for line in lines
    ]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "not json\n",
        '{"format": 2}\n{"text": ""}\n',
        '{"format": 1, "task": "single_label"}\n{"text": "", "input_ids": [1], "token_type_ids": [0], "logits": [0]}\n',
        HEAD,
        HEAD + '{"text": "a"}\n',
        HEAD.replace('{"label_agreement": 0.9}', "{}") + LINE,
        HEAD.replace("0.9", "Infinity") + LINE,
        HEAD.replace("0.9", '"0.9"') + LINE,
        HEAD.replace("single_label", "") + LINE,
        HEAD + LINE.replace("[0, 1]", "0"),
        HEAD + LINE.replace("[0, 1]", "[1%s, 0]" % ("0" * 400)),
        HEAD + LINE.replace("[7]", f"[{2**40}]"),
        HEAD + LINE.replace("[7]", "[-1]"),
        HEAD + "[" * 100_000,
        HEAD + "3\n",
        HEAD.replace('{"format"', '{"saturating_sums": 2, "format"', 1) + LINE,
        HEAD.replace('{"format"', '{"saturating_sums": null, "format"', 1) + LINE,
    ],
    ids=(
        "absent empty json format head requests line unlimited infinite text task number huge id negative deep other "
        "share none"
    ).split(),
)
def test_another_file_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / golden.FILE
    file.write_text(HEAD + LINE)
    assert golden.read(file)[2].tolist() == [[0.0, 1.0]]
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match="not a golden file of tfpipe") as error:
        golden.read(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("found", "limits", "failures"),
    [
        ({"max_abs_logit_diff": 1e-4}, {"max_abs_logit_diff": 1e-4}, 0),
        ({"max_scaled_logit_diff": 1.1e-4}, {"max_scaled_logit_diff": 1e-4}, 1),
        ({"max_abs_logit_diff": 1.1e-4}, {"max_abs_logit_diff": 1e-4}, 1),
        ({"max_abs_logit_diff": float("nan")}, {"max_abs_logit_diff": 1e-4}, 1),
        ({"label_agreement": 0.98, "mean_abs_probability_diff": 0.02}, {"label_agreement": 0.99}, 1),
        (
            {"label_agreement": 0.98, "mean_abs_probability_diff": 0.02},
            {"label_agreement": 0.99, "mean_abs_probability_diff": 0.01},
            2,
        ),
    ],
)
def test_limits_are_kept_or_named(found, limits, failures):
    said = golden.exceeded(found, {"limits": limits})
    assert len(said) == failures and all(any(name in line for name in limits) for line in said)


def test_answers_of_both_signatures_agree(tiny_run, tokenizer):
    requests = golden.hard_requests(tokenizer, pairs=False)
    answers = format_named("saved_model").code.load(tiny_run[1] / "export" / "dense" / "saved_model")
    assert [(answer.name, answer.takes_text) for answer in answers] == [
        ("saved_model", False),
        ("saved_model_text", True),
    ]
    by_tokens, by_text = (answer.ask(requests) for answer in answers)
    assert np.abs(by_text - by_tokens).max() <= 1e-5
