"""What a run is measured on: a sample of the whole test split, whatever the order of its rows."""

import json
import math
import random

import numpy as np
import pytest
from conftest import WORDS, TokenRow, tiny_config, write_encoder, write_token_table
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tfpipe import metrics, pipeline
from tfpipe.config.file import parse_config
from tfpipe.evaluate.golden import hard_requests
from tfpipe.evaluate.loaded import Artifact, Loaded, load_artifacts
from tfpipe.evaluate.parity import answer, answer_rows, compare
from tfpipe.formats.base import Answer
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

SHARES = (0.5, 0.3, 0.15, 0.05)
ROWS = 2000
KINDS = ("keras", "saved_model", "saved_model_text", "onnx")


@pytest.fixture(scope="module")
def sorted_table(tmp_path_factory):
    """Rows sorted by label, those of a label by length, as folders and exports have them."""
    labels = np.repeat(np.arange(len(SHARES)), [round(share * ROWS) for share in SHARES])
    rows = []
    for n, label in enumerate(labels):
        ids = np.ones(3 + n % 400 // 20, np.int32)
        rows.append(TokenRow(ids, ids * 0, np.eye(len(SHARES), dtype=np.float32)[label], n, str(n)))
    directory = tmp_path_factory.mktemp("table")
    write_token_table(directory, rows, num_labels=len(SHARES))
    return TokenTable.open(directory)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, ROWS + 500), st.integers(0, 2**31 - 1))
def test_each_label_has_its_share_in_a_sample(sorted_table, rows, seed):
    """Within five standard deviations of a binomial distribution, which is wider than that of a sample."""
    sample = sorted_table.sample(rows, seed)
    count = min(rows, ROWS)
    assert sample.dtype == np.int64 and len(sample) == count
    assert (np.diff(sample) > 0).all() and sample[0] >= 0 and sample[-1] < ROWS
    for label, share in enumerate(SHARES):
        found = sorted_table.labels[sample][:, label].sum()
        assert abs(found - share * count) <= 5 * math.sqrt(count * share * (1 - share)) + 1
    mean, deviation = sorted_table.lengths.mean(), sorted_table.lengths.std()
    assert abs(sorted_table.lengths[sample].mean() - mean) <= 5 * deviation / math.sqrt(count)


@given(st.integers(1, ROWS), st.integers(1, ROWS), st.integers(0, 99))
def test_fewer_rows_are_a_subset_of_more(sorted_table, one, other, seed):
    fewer, more = (sorted_table.sample(rows, seed) for rows in sorted((one, other)))
    assert np.isin(fewer, more).all()
    assert (sorted_table.sample(ROWS, seed) == np.arange(ROWS)).all()


@pytest.fixture(scope="module")
def hard(tiny_run):
    return hard_requests(Tokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32), pairs=False)


@pytest.mark.parametrize(("rows", "few"), [(300, 60), (300, 900), (ROWS, 100)])
def test_all_artifacts_answer_the_same_sample(tiny_run, sorted_table, hard, rows, few):
    """The answers are the rows' numbers, and nothing is lost on the way from batches of similar length."""
    tree = tiny_run[0].model_dump() | {"verify": {"rows": rows, "small_batch_rows": few}}
    config = parse_config(tree, where="the test")
    seen = {(variant, kind): [] for variant in ("dense", "int8") for kind in KINDS}

    def artifact(variant, kind):
        def ask(batch):
            seen[variant, kind] += [int(text) for text in batch.texts if isinstance(text, str)]
            numbers = [float(text) if isinstance(text, str) else 0.0 for text in batch.texts]  # hard texts are bytes
            return np.array([[number, 0, 0, 0] for number in numbers], np.float32)

        return Loaded(Artifact(variant, kind, kind, None, 0, 0.0, 0, 64), Answer(kind, False, ask))

    sample = sorted_table.sample(rows, config.seed)
    for variant in ("dense", "int8"):
        answered = answer([artifact(variant, kind) for kind in KINDS], sorted_table, hard, config)
        found = compare(answered, sorted_table, config)
        assert all((each.batched.rows[:, 0] == sample).all() for each in answered)
        assert {(each["rows"], each["of"]) for each in found} == {(rows, ROWS), (min(few, rows), ROWS)}
    first, *others = seen.values()
    assert all(other == first for other in others)
    large, small = first[:rows], first[rows:]
    assert sorted(large) == sample.tolist() and set(small) <= set(large) and len(small) == min(few, rows)
    shares = sorted_table.labels[small].mean(axis=0)
    assert np.abs(shares - SHARES).max() < 5 * 0.5 / math.sqrt(len(small))


@pytest.fixture(scope="module")
def of_folders(tmp_path_factory):
    """A run on a folder per class, which verifies a third of its test rows."""
    directory, draw = tmp_path_factory.mktemp("folders"), random.Random(0)
    for label, words in (("neg", "bad awful dull weak cold"), ("pos", "good great fine lovely warm")):
        texts = set()
        while len(texts) < 300:
            opinion = draw.choice(words.split() * 3 + WORDS[:20])
            texts.add(" ".join([*draw.choices(WORDS[:20], k=6), opinion, draw.choice(WORDS[:20])]))
        (directory / "data" / label).mkdir(parents=True)
        for number, text in enumerate(sorted(texts)):
            (directory / "data" / label / f"{number:03d}.txt").write_text(text)
    config = tiny_config(
        directory / "data",
        write_encoder(directory / "encoder"),
        data__label_names=None,
        train__epochs=3,
        distill=None,
        prune=None,
        quantize=None,
        verify__rows=50,
    )
    run = RunDirectory(directory / "run")
    pipeline.run(config, run)
    return config, run.path


def test_a_folder_per_class_is_measured_as_a_whole(of_folders):
    config, run = of_folders
    table = TokenTable.open(run / "prepare" / "test")
    loaded = load_artifacts("dense", run / "train", run / "export" / "dense", ("saved_model", "onnx"), 1)
    artifacts = [each for ways in loaded for each in ways]
    rows = json.loads((run / "verify" / "parity.json").read_text())["artifacts"]
    logits = load_file(run / "verify" / "logits.safetensors")
    labels = table.labels[logits["rows"]]
    assert labels[:, 0].sum() > 10 and labels[:, 1].sum() > 10
    for (artifact, way), row in zip(artifacts, rows, strict=True):
        answers = answer_rows(way, table, 32)
        everywhere = metrics.evaluate(answers, table.labels, config.task)
        low, high = row["accuracy_95"]
        assert low <= everywhere["accuracy"] <= high and abs(everywhere["macro_f1"] - row["macro_f1"]) < 0.15
        kept = logits[f"dense.{artifact.kind}"]
        assert np.abs(answers[logits["rows"]] - kept).max() < 1e-5
        assert metrics.evaluate(kept, labels, config.task)["accuracy"] == row["accuracy"]
        assert (row["rows"], row["of"]) == (50, table.num_rows)


def test_a_sample_is_called_one(of_folders, tiny_run):
    for directory, told in (
        (of_folders[1], "a random sample of 50 of {} test rows"),
        (tiny_run[1], "all {} test rows"),
    ):
        told = told.format(TokenTable.open(directory / "prepare" / "test").num_rows)
        assert json.loads((directory / "report" / "metrics.json").read_text())["measured_on"] == told
        assert f"Measured on {told}. " in (directory / "report" / "model_card.md").read_text()
