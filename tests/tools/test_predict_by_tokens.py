"""Answers by token ids: those of `verify`'s way of asking, in order, the same bytes by any number of threads."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_config

from tfpipe import artifacts, pipeline
from tfpipe.artifacts import format_named
from tfpipe.errors import InputError
from tfpipe.evaluate.golden import HARD_TEXTS, tokenized
from tfpipe.formats.base import Requests
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tasks import task_of
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict import by_tokens

TEXTS = [
    *(text.decode("utf-8", "ignore") for text in HARD_TEXTS.values()),
    *(f"this film is {'very ' * (number % 30)}good number {number}" for number in range(300)),
    "a dull plot " * 200_000,
    "fine",
]
FORMATS = ("onnx", "openvino", "litert")


@pytest.fixture(params=FORMATS)
def format(request):
    return format_named(request.param)


@pytest.fixture
def folder(every_format_run, format):
    return every_format_run[1] / "export" / "int8" / format.path


def verified(format, folder, texts, pairs=None, *, alone=True):
    """Logits as `verify` asks for them, by TensorFlow's tokenizer: each text alone, or in the same batches."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer(TokenizerSettings.read(folder), config["max_length"])
    encode = [text.encode() for text in texts], None if pairs is None else [text.encode() for text in pairs]
    (answer,) = format.code.load(folder, 1)
    requests, logits = tokenized(*encode, tokenizer), np.zeros((len(texts), 2), np.float32)
    if alone:
        return np.concatenate([answer.ask(requests.part(row, row + 1)) for row in range(len(texts))])
    for rows in by_tokens.batches(requests.tokens["attention_mask"].sum(axis=1), by_tokens.TOKENS_PER_BATCH):
        tokens = {name: value[rows] for name, value in requests.tokens.items()}
        batch = Requests(tokens, [texts[row] for row in rows], None)
        logits[rows] = answer.ask(batch.part(0, len(rows)))
    return logits


def test_answers_are_those_that_verify_measures(format, folder):
    answerer = by_tokens.open_folder(folder)
    assert not answerer.pairs and answerer.one_label and answerer.names == ("negative", "positive")
    found = answerer.answer(answerer.prepare(TEXTS, None))
    logits = verified(format, folder, TEXTS, alone=False)
    assert found.labels == task_of("single_label").label_texts(logits, answerer.names)
    np.testing.assert_array_equal(found.probabilities, task_of("single_label").probabilities(logits))


def test_float_answers_are_those_that_verify_measures(every_format_run):
    folder = every_format_run[1] / "export" / "dense" / "onnx"
    answerer = by_tokens.open_folder(folder)
    found = answerer.answer(answerer.prepare(TEXTS, None))
    expected = task_of("single_label").probabilities(verified(format_named("onnx"), folder, TEXTS))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_threads_change_no_bit(monkeypatch, folder):
    monkeypatch.setattr(by_tokens, "TOKENS_PER_BATCH", 256)
    answerers = [by_tokens.open_folder(folder, threads) for threads in (1, 2, 5)]
    one, *others = ([each.answer(each.prepare(TEXTS, None)) for _ in range(2)] for each in answerers)
    assert all(
        answers.labels == one[0].labels and answers.probabilities.tobytes() == one[0].probabilities.tobytes()
        for answers in (*one, *(each for pair in others for each in pair))
    )


def test_one_text_starts_no_thread_and_no_text_is_answered(folder):
    answerer = by_tokens.open_folder(folder, 4)
    for texts in ([], ["good"], ["good", "bad"]):
        found = answerer.answer(answerer.prepare(texts, None))
        assert len(found.labels) == len(texts) and found.probabilities.shape == (len(texts), 2)
    assert answerer._pool is None


def test_batches_hold_every_row_once_and_no_more_than_their_tokens():
    lengths = np.random.default_rng(0).integers(2, 300, 1000)
    lengths[7] = 5000
    found = by_tokens.batches(lengths, 1024)
    assert sorted(np.concatenate(found)) == list(range(1000))
    assert [rows.tolist() for rows in found if len(rows) * lengths[rows].max() > 1024] == [[7]]
    padding = sum(len(rows) * lengths[rows].max() for rows in found) / lengths.sum() - 1
    assert padding < 0.02
    assert by_tokens.batches(np.zeros(0, np.int64), 1024) == []


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_encoder):
    """A run over pairs of texts, with the ONNX format."""
    directory = tmp_path_factory.mktemp("pairs")
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for number in range(200):
            label = "same" if number % 2 else "other"
            second = "good film" if label == "same" else "awful plot"
            file.write(json.dumps({"text": f"good film {number}", "text_pair": f"{second} {number}", "label": label}))
            file.write("\n")
    config = tiny_config(
        directory / "rows.jsonl",
        tiny_encoder,
        data__text_pair_column="text_pair",
        data__label_names=None,
        export__formats=["saved_model", "onnx"],
        budget__max_drop=1.0,
    )
    pipeline.run(config, RunDirectory(directory / "run"), until="export")
    return directory / "run"


def test_pairs_are_answered(pair_run):
    folder = pair_run / "export" / "dense" / "onnx"
    answerer = by_tokens.open_folder(folder)
    assert answerer.pairs
    texts, pairs = TEXTS[:-1], TEXTS[1:]
    found = answerer.answer(answerer.prepare(texts, pairs))
    expected = task_of("single_label").probabilities(verified(format_named("onnx"), folder, texts, pairs))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def record_ids(folder):
    """Writes the ids of its tokenizer into the golden requests of a folder."""
    tokenizer = Tokenizer(TokenizerSettings.read(folder), 32)
    head, *lines = (folder / "golden.jsonl").read_text().rstrip("\n").split("\n")
    requests = [json.loads(line) for line in lines]
    for each in requests:
        if isinstance(each["text"], str):
            each["input_ids"] = tokenizer.dense([each["text"]])["input_ids"][0].numpy().tolist()
    (folder / "golden.jsonl").write_text("\n".join([head, *map(json.dumps, requests)]) + "\n")


def test_stop_words_are_answered_by_tensorflows_tokenizer(every_format_run, tmp_path):
    folder = shutil.copytree(every_format_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx")
    assert by_tokens.cannot_tokenize(folder) is None
    (folder / "cleaning.json").write_text(json.dumps({"html": False, "unicode": None, "stop_words": ["film", "the"]}))
    assert "stop words" in by_tokens.cannot_tokenize(folder)
    record_ids(folder)
    answerer = by_tokens.open_folder(folder)
    found = answerer.answer(answerer.prepare(TEXTS, None))
    expected = task_of("single_label").probabilities(verified(format_named("onnx"), folder, TEXTS))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_the_tokenizer_of_another_model_is_refused(every_format_run, tmp_path):
    folder = shutil.copytree(every_format_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx")
    settings = TokenizerSettings.read(folder)
    pieces = list(settings.vocabulary)
    first, second = pieces.index("film"), pieces.index("good")
    pieces[first], pieces[second] = pieces[second], pieces[first]
    replace(settings, vocabulary=tuple(pieces)).write(folder, 32)
    with pytest.raises(InputError, match=r"its tokenizer is not the model's: of the golden request '.*' it makes"):
        by_tokens.open_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "golden.jsonl").unlink(), r"golden\.jsonl: can't be read .*come in pairs"),
        (lambda folder: (folder / "config.json").unlink(), "no artifact that takes token ids"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"config\.json: .*no 'id2label'"),
        (lambda folder: (folder / "vocab.txt").write_text("a\n"), r"vocab\.txt: differs from tokenizer\.json"),
        (lambda folder: next(folder.glob("onnx/*")).write_bytes(b"x"), "can't be loaded"),
        (lambda folder: shutil.rmtree(folder / "onnx"), "no artifact that takes token ids"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json: not a readable JSON file"),
    ],
)
def test_a_damaged_folder_is_refused(every_format_run, tmp_path, change, message):
    folder = shutil.copytree(every_format_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx")
    change(folder)
    with pytest.raises(InputError, match=message) as error:
        by_tokens.open_folder(folder)
    assert "\n" not in str(error.value)


def test_a_model_of_other_labels_is_refused(every_format_run, tmp_path):
    folder = shutil.copytree(every_format_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["2"] = "neither"
    (folder / "config.json").write_text(json.dumps(config))
    answerer = by_tokens.open_folder(folder)
    with pytest.raises(InputError, match=r"can't be asked .*export it again"):
        answerer.answer(answerer.prepare(["a film"], None))


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_takes_no_tensorflow_and_less_than_a_second(every_format_run, name):
    folder = every_format_run[1] / "export" / "int8" / artifacts.format_named(name).path
    script = (
        "import pathlib, sys, time\n"
        "from tfpipe.tools.predict.by_tokens import open_folder\n"
        f"answerer = open_folder(pathlib.Path({str(folder)!r}))\n"
        "assert len(answerer.answer(answerer.prepare(['a film'], None)).labels) == 1\n"
        "assert not {'tensorflow', 'transformers', 'pyarrow', 'sklearn'} & sys.modules.keys()\n"
        "print(time.process_time())"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert float(answer.stdout.splitlines()[-1]) < 1.0
