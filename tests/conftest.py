"""A two-layer BERT with a tiny vocabulary, made in a second, and what many tests share."""

from __future__ import annotations

import csv
import fcntl
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from forked import Forks
from tiny_bert import TINY, WORDS, tiny_vocabulary, tiny_weights

from tfpipe import artifacts, cli, console, pipeline
from tfpipe.config.file import dump_config, parse_config
from tfpipe.config.run import Config
from tfpipe.devices.untuned import untuned
from tfpipe.rundir import remote  # before TensorFlow: the package sets what TensorFlow reads when it is imported
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import prepare as prepare_stage
from tfpipe.tokens.table import TokenRows, record_batch, write_manifest, write_shard
from tfpipe.tools.predict import by_text, command

import tensorflow as tf  # isort: skip
from tensorflow.python.data.ops import multi_device_iterator_ops  # isort: skip
from tensorflow.python.framework.ops import gradient_registry  # isort: skip

# Two logical devices for the tests of MirroredStrategy; all else runs on the first. Set before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# `tf.distribute` makes a dataset of its own for each device, and takes no options for it. Deleting many of their
# iterators, as tests do, takes minutes.
_device_dataset = multi_device_iterator_ops._create_device_dataset
multi_device_iterator_ops._create_device_dataset = lambda *given: untuned(_device_dataset(*given))


def pytest_collection_finish():
    gc.freeze()  # what was imported stays: half a million objects that no collection looks at again
    gc.set_threshold(20_000)  # of new objects; graphs are made of many


@pytest.fixture(autouse=True)
def nothing_was_said_before():
    """What `console.say_once` has printed in another test is printed again."""
    console._said.clear()


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves_is_set_aside():
    """What is kept after a module of tests is kept to the end: no later collection goes through it.

    TensorFlow keeps every graph that a `tf.custom_gradient` was traced in: 20 MB a fit.
    """
    yield
    registered = gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Of two processes the first makes the finished run, and the second begins with tests that do without."""
    with_run = {item.path for item in items if "tiny_run" in item.fixturenames}
    items.sort(key=lambda item: item.path not in with_run)


def pytest_terminal_summary(terminalreporter):
    if "fuzz.harness" in sys.modules and sys.modules["fuzz.harness"].TALLIES:
        sys.modules["fuzz.harness"].summarize(terminalreporter)


def pytest_sessionfinish(session):
    """Of several processes, each hands its tallies of the fuzz tests to the one that prints."""
    if hasattr(session.config, "workeroutput") and "fuzz.harness" in sys.modules:
        tallies = sys.modules["fuzz.harness"].TALLIES
        session.config.workeroutput["tallies"] = {target: vars(tally) for target, tally in tallies.items()}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    if tallies := getattr(node, "workeroutput", {}).get("tallies"):
        from fuzz import harness

        harness.TALLIES |= {target: harness.Tally(**tally) for target, tally in tallies.items()}


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that all processes of the tests share: the first that asks makes it, and the others wait."""
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    directory.parent.mkdir(exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, also by the end of the process
        made = directory.with_suffix(".made")
        if not made.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a process that ended meanwhile
            directory.mkdir()
            make(directory)
            made.touch()
    return directory


def write_encoder(directory: Path, **changes) -> Path:
    """Writes a tiny encoder in the transformers layout."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_vocabulary()
    config = TINY | {"vocab_size": len(vocabulary)} | changes
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    )
    save_file(tiny_weights(config), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """Directory of a two-layer BERT in the transformers layout."""
    return made_once(tmp_path_factory, "encoder", write_encoder)


def write_reviews(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV of distinct made-up sentences that a tiny model learns in a few steps: columns text, label, source."""
    random = np.random.default_rng(seed)
    opinions = {
        "1": ["good", "great", "fine", "lovely", "warm", "funny"],
        "0": ["bad", "awful", "dull", "weak", "cold"],
    }
    openers, things = ["this", "the", "that", "so the", "all in all the"], ["film", "movie", "story", "plot", "cast"]
    texts: dict[str, str] = {}
    while len(texts) < count:
        label = "01"[len(texts) % 2]
        words = [random.choice(part) for part in (openers, things, ["is", "was"], ["very", "so", "not only"])]
        closing = " ".join(random.choice(WORDS[:10] + WORDS[-20:], random.integers(0, 8)))
        opinion = " and ".join(random.choice(opinions[label], 2))
        texts.setdefault(f"{' '.join(words)} {opinion} {closing}".strip(), label)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source"])
        writer.writerows([text, label, "made up"] for text, label in texts.items())
    return path


def classifier_of(run: Path, variant: str):
    """The classifier of a variant of a run as its artifacts hold it: calibrated."""
    from tfpipe.evaluate.loaded import exported_classifier
    from tfpipe.variants import STAGE_OF_VARIANT

    return exported_classifier(run / STAGE_OF_VARIANT[variant], run / "export", variant)


def tiny_config(data: Path, encoder: Path, **changes) -> Config:
    """A configuration that runs the whole pipeline in a minute; `changes` are dotted paths, with `__` for the dot."""
    tree = {
        "name": "tiny",
        "data": {
            "source": str(data),
            "label_names": {"0": "negative", "1": "positive"},
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            "max_length": 32,
        },
        "encoder": {"source": str(encoder)},
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3, "precision": "float32", "checkpoint_every": 7},
        "prune": {"sparsity": 0.5, "epochs": 1, "learning_rate": 1e-3},
        "quantize": {"epochs": 0.5, "learning_rate": 1e-4, "calibration_rows": 64},
        "verify": {"small_batch_rows": 16, "min_label_agreement_int8": 0.95, "latency_runs": 2, "sanity": "allow"},
        "budget": {"max_drop": 0.1},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return parse_config(tree, where="the test")


class TokenRow(NamedTuple):
    """A row of a token table that a test makes."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    labels: np.ndarray
    row_id: int
    text: str = ""
    text_pair: str | None = None
    source: str = "made up"
    line: int = 1


def write_token_table(directory: Path, rows, *, num_labels: int, pad_id: int = 0, shard_rows: int = 16384) -> None:
    """Writes a token table of `TokenRow`s."""
    rows, names = list(rows), []
    directory.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(rows), shard_rows):
        part = rows[first : first + shard_rows]
        columns = TokenRows(
            input_ids=np.concatenate([row.input_ids for row in part]),
            token_type_ids=np.concatenate([row.token_type_ids for row in part]),
            row_splits=np.cumsum([0, *(len(row.input_ids) for row in part)]),
            labels=np.array([row.labels for row in part], np.float32),
            row_ids=np.array([row.row_id for row in part]),
            copies=np.zeros(len(part), np.int32),
            texts=[row.text for row in part],
            text_pairs=[row.text_pair for row in part],
            sources=[row.source for row in part],
            lines=[row.line for row in part],
        )
        names.append(f"part-{len(names):05d}.arrow")
        write_shard(directory / names[-1], record_batch(columns))
    write_manifest(directory, names, num_labels=num_labels, pad_id=pad_id)


@pytest.fixture(scope="session")
def tiny_reviews(tmp_path_factory) -> Path:
    """A CSV file of 400 sentences."""
    made = made_once(tmp_path_factory, "data", lambda directory: write_reviews(directory / "reviews.csv", 400))
    return made / "reviews.csv"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_reviews, tiny_encoder) -> tuple[Config, Path]:
    """A finished run of the whole pipeline: its configuration and its directory. Read it, do not change it."""
    config = tiny_config(tiny_reviews, tiny_encoder)
    return config, made_once(tmp_path_factory, "run", lambda directory: pipeline.run(config, RunDirectory(directory)))


@pytest.fixture(scope="session")
def every_format_run(tmp_path_factory, tiny_run, tiny_reviews, tiny_encoder) -> tuple[Config, Path]:
    """The tiny run in every format: its configuration and its directory. Read it, do not change it."""
    names = [each.name for each in artifacts.FORMATS]
    config = tiny_config(tiny_reviews, tiny_encoder, export__formats=names, export__openvino__lengths=[16, 32])

    def make(directory: Path) -> None:
        pipeline.run(config, RunDirectory(directory), others=[RunDirectory(tiny_run[1])])

    return config, made_once(tmp_path_factory, "every-format", make)


@pytest.fixture(scope="session")
def pytorch(tmp_path_factory) -> Path:
    """An interpreter with transformers and PyTorch, which requirements.lock leaves out. Slow: both are installed."""

    def install(directory: Path) -> None:
        requirements = Path(__file__).parent / "model" / "transformers_reference" / "requirements.txt"
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([directory / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)

    return made_once(tmp_path_factory, "pytorch", install) / "bin" / "python"


@pytest.fixture
def copied_run(tmp_path, tiny_run) -> tuple[Config, RunDirectory]:
    """A copy of the finished run, to change."""
    config, directory = tiny_run
    return config, RunDirectory(shutil.copytree(directory, tmp_path / "run"))


@pytest.fixture(scope="session")
def forks():
    """Starts commands in processes of their own, without the seconds that TensorFlow's import takes."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def ram_replaces(monkeypatch):
    """`ram://` stands in for `gs://`, but appends to a file that is there; every store that counts replaces it."""
    copy = remote.copy_file

    def replace(source, target):
        if target.startswith("ram://") and tf.io.gfile.exists(target):
            tf.io.gfile.remove(target)
        copy(source, target)

    monkeypatch.setattr(remote, "copy_file", replace)


@pytest.fixture
def tfpipe_command(monkeypatch, capsys, tmp_path):
    """Runs a command in this process: arguments -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        monkeypatch.setattr(sys, "argv", ["tfpipe", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def tiny_file(tmp_path, tiny_reviews, tiny_encoder):
    """The tiny configuration as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config(tiny_reviews, tiny_encoder)), encoding="utf-8")
    return path


def write_wordnet(directory: Path, **synsets: list[str]) -> str:
    """WordNet's own files: `write_wordnet(directory, adj=["good", "fine"])` makes one synset of adjectives."""
    directory.mkdir(exist_ok=True)
    header = "  1 This software and database is WordNet 3.0\n"
    for part in ("noun", "verb", "adj", "adv"):
        data, index, offset = header, header, len(header)
        if part in synsets:
            kind, lemmas = part[0], synsets[part]
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            data += f"{offset:08d} 00 {kind} {len(lemmas):02x} {words} 000 | a gloss  \n"
            index += "".join(f"{lemma} {kind} 1 0 1 0 {offset:08d}  \n" for lemma in sorted(lemmas))
        (directory / f"data.{part}").write_text(data)
        (directory / f"index.{part}").write_text(index)
        (directory / f"{part}.exc").write_text("")
    return str(directory)


def last_line(answer):
    """The message of a command that ended with exit code 2: one line, after whatever the stages said."""
    code, out, error = answer
    lines = error.splitlines()
    assert code == 2 and out == "" and "Traceback" not in error
    assert [line for line in lines if line.startswith("tfpipe: ")] == lines[-1:]
    return lines[-1]


@pytest.fixture
def fault():
    """Notes a fault, what became of it and the exit code: `make chaos` prints them as a table."""

    def note(what: str, happened: str, code: int | str) -> None:
        if path := os.environ.get("FAULT_TABLE"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"fault": what, "happened": happened, "code": code}) + "\n")

    return note


@pytest.fixture
def prepared(tmp_path, tiny_encoder, capsys):
    """A function that prepares rows and returns the stage's directory and what was printed."""

    def run(rows, columns=("text", "label"), name="prepare", task="single_label", seed=0, resume=False, **data):
        path = tmp_path / "rows.csv"
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        else:
            with open(path, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns, *rows])
        settings = {"source": str(path), "max_length": 32} | data
        tree = {"name": "x", "task": task, "seed": seed, "data": settings, "encoder": {"source": str(tiny_encoder)}}
        stage = StageDirectory("prepare", tmp_path / name, {})
        stage.path.mkdir(exist_ok=resume)
        prepare_stage.run(parse_config(tree, where="test"), stage)
        return stage.path, capsys.readouterr().err

    return run


def predict(model: Path, texts: Iterable[str], allowed: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Answers of a SavedModel, as `tfpipe predict` writes them."""
    return command.answers(by_text.open_saved_model(Path(model), allowed), ((text, None) for text in texts))
