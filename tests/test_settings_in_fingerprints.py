"""Every setting decides about a stage's output or changes no committed byte; a stage reads what it declares alone."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import typing
from typing import Any, Literal

import pytest
from conftest import tiny_config, write_encoder, write_reviews

from tfpipe import pipeline
from tfpipe.config.rows import Augmentation
from tfpipe.config.run import Config
from tfpipe.config.types import Section
from tfpipe.rundir.directory import RunDirectory
from tfpipe.stages import table

BY_CONTENT = {"encoder.source", "distill.student.encoder"}
"""what they hold is in fingerprints, not where they lie"""
OF_THE_REPORT = {"report.label_errors"}
"""read by the stage alone that has the whole configuration in its fingerprint"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """A configuration with every section on, small enough to run."""
    directory = tmp_path_factory.mktemp("settings")
    settings = {
        "data__augmentation": {"copies": 1, "swap": 0.1},
        "data__duplicates": {"near": True},
        "data__balance": "oversample",
        "train__epochs": 1,
        "train__early_stopping": {},
        "train__reduce_on_plateau": {},
        "train__class_weights": "balanced",
        "distill": {"hidden_weight": 0.1, "layer_map": {"0": 0}, "student": {"layers": [0], "epochs": 0.5}},
        "prune": {"method": "structured", "sparsity": 0.3, "epochs": 0.5},
        "quantize": {"epochs": 0.5, "calibration": "percentile", "calibration_rows": 64, "float_layers": 1},
        "verify": {
            "rows": 10,
            "small_batch_rows": 5,
            "min_label_agreement_int8": 0.0,
            "max_probability_diff_int8": 1.0,
            "sanity": "allow",
        },
        "export": {"formats": ["saved_model", "onnx", "openvino", "litert"]},
        "budget": {"max_drop": None, "max_size_bytes": 10**8, "max_latency_ms": 1e6},
    }
    encoder = write_encoder(directory / "encoder", num_hidden_layers=1)
    return tiny_config(write_reviews(directory / "reviews.csv", 120), encoder, **settings)


def leaves(section: Section, path: str = "") -> dict[str, Any]:
    """Dotted path -> value of every setting, those of sections that are on."""
    found = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        dotted = f"{path}.{name}" if path else name
        found |= leaves(value, dotted) if isinstance(value, Section) else {dotted: value}
    return found


def replaced(section: Section, path: str, value: Any) -> Section:
    """The same section with another value at a path; whether it is valid is not asked."""
    name, _, rest = path.partition(".")
    return section.model_copy(update={name: replaced(getattr(section, name), rest, value) if rest else value})


def annotation_of(path: str) -> Any:
    section: Any = Config
    for name in path.split("."):
        annotation = section.model_fields[name].annotation
        inner = [each for each in (annotation, *typing.get_args(annotation)) if isinstance(each, type)]
        section = next((each for each in inner if issubclass(each, Section)), section)
    return annotation


def others(path: str, value: Any) -> list[Any]:
    """Other values of a setting: one of its kind, and of a mapping another order."""
    literals = [
        each
        for option in (annotation_of(path), *typing.get_args(annotation_of(path)))
        if typing.get_origin(option) is Literal
        for each in typing.get_args(option)
    ]
    if isinstance(value, dict):
        return [dict(list(value.items())[::-1]) if len(value) > 1 else {**value, "5": 5}]
    if literals:
        return [each for each in literals if each != value] or [None]
    if isinstance(value, bool) or value is None:
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value / 2 or 0.25]
    return [(*value, "more")] if isinstance(value, tuple) else [f"{value}x"]


def digests(config: Config, **files: Any) -> dict[str, str]:
    """Stage -> digest of its fingerprint, as if nothing changed in the stages before it."""
    found = {}
    for stage in table.STAGES:
        if stage.name != "report":  # it shows every setting
            stage = dataclasses.replace(stage, **files)
            found[stage.name] = pipeline._fingerprint(config, RunDirectory("nowhere"), stage, []).digest
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")  # a value of another type, of pydantic
def test_every_setting_is_in_a_fingerprint_or_changes_nothing(config):
    no_files = {"files": lambda config: {}}
    before, missed = digests(config, **no_files), []
    settings = {path: value for path, value in leaves(config).items() if path not in BY_CONTENT | OF_THE_REPORT}
    for path, value in settings.items():
        for other in others(path, value):
            same = digests(replaced(config, path, other), **no_files) == before
            if same != (path in table.WITHOUT_EFFECT):
                missed.append(path)
    assert missed == [] and table.WITHOUT_EFFECT.keys() < settings.keys() and len(settings) > 100


def test_every_section_that_is_off_is_in_a_fingerprint(config):
    for path in (
        *("data.augmentation", "train.early_stopping", "train.reduce_on_plateau"),
        *("distill", "distill.student", "prune", "quantize"),
    ):
        assert digests(replaced(config, path, None)) != digests(config), path


def test_what_is_read_from_outside_is_in_a_fingerprint_by_its_content(config, tmp_path):
    encoder, rows = shutil.copytree(config.encoder.source, tmp_path / "encoder"), tmp_path / "reviews.csv"
    shutil.copy(config.data.source, rows)
    wordnet = tmp_path / "wordnet"
    wordnet.mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"index.{part}", f"data.{part}", f"{part}.exc"):
            (wordnet / name).write_text(name)
    student = config.distill.student.model_copy(update={"layers": None, "encoder": str(encoder)})
    settings = replaced(config, "encoder.source", str(encoder))
    settings = replaced(replaced(settings, "distill.student", student), "data.source", str(rows))
    augmented = replaced(settings, "data.augmentation", Augmentation(synonyms=0.5, wordnet=str(wordnet)))
    of_encoder = {"config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"}
    assert of_encoder == {path.name for path in encoder.iterdir()}
    for path in (rows, *encoder.iterdir(), *wordnet.iterdir()):
        before, content = digests(augmented), path.read_bytes()
        path.write_bytes(content + b" ")
        changed = {name for name, digest in digests(augmented).items() if before[name] != digest}
        assert changed == {"model.safetensors": {"train", "distill"}}.get(
            path.name, {"prepare", "train", "distill"} if path.parent == encoder else {"prepare"}
        ), path
        path.write_bytes(content)
    # two files whose contents change places are other input
    before = digests(augmented)["prepare"]
    (wordnet / "data.noun").write_text("data.verb")
    (wordnet / "data.verb").write_text("data.noun")
    assert digests(augmented)["prepare"] != before


def test_a_stage_reads_what_it_declares(config, tmp_path, monkeypatch):
    """Every stage runs on a view that lacks all else; each declared setting is read by some stage."""
    read, places = set(), {}
    plain = Section.only

    def noted(section, paths):
        view = plain(section, paths)
        note(view, "")
        return view

    def note(section: Section, path: str) -> None:
        places[id(section)] = (path, section)  # kept alive, so that its number stays its own
        for name, value in vars(section).items():
            if isinstance(value, Section):
                note(value, f"{path}{name}.")

    def noting(section, name):
        if id(section) in places and name in type(section).model_fields:
            read.add(places[id(section)][0] + name)
        return object.__getattribute__(section, name)

    monkeypatch.setattr(Section, "only", noted)
    monkeypatch.setattr(Section, "__getattribute__", noting, raising=False)
    pipeline.run(config, RunDirectory(tmp_path / "run"), until="publish")
    under_other_settings = {"data.label_separator", "train.momentum"}  # of several labels, of sgd
    under_other_settings |= {"data.line", "data.file_name"}  # of data.format: lines
    unread = leaves(config).keys() - read - set(table.WITHOUT_EFFECT) - OF_THE_REPORT
    assert unread == under_other_settings, unread ^ under_other_settings


def test_a_view_has_what_was_asked_for(config):
    view = config.only(("seed", "train.epochs", "distill.student", "data.source"))
    assert (view.seed, view.train.epochs, view.distill.student) == (config.seed, 1, config.distill.student)
    assert pickle.loads(pickle.dumps(view)).train.epochs == 1
    for read, named in (
        (lambda: view.train.metric, "Train.metric"),
        (lambda: view.task, "Config.task"),
        (lambda: view.prune, "Config.prune"),
        (lambda: view.distill.weight, "Distill.weight"),
        (lambda: pickle.loads(pickle.dumps(view)).data.text_column, "Data.text_column"),
    ):
        with pytest.raises(RuntimeError, match=rf"{named} is read by a stage that does not declare it; .*stages/table"):
            read()
    assert replaced(config, "distill", None).only(("distill.weight",)).distill is None
    assert config.only(("train",)).train == config.train and config.train.metric  # the whole is as it was


def test_a_stage_that_reads_more_stops(config, tmp_path, monkeypatch):
    less = dataclasses.replace(table.STAGES[0], settings=tuple(set(table.STAGES[0].settings) - {"data.filter"}))
    monkeypatch.setattr(table, "STAGES", (less, *table.STAGES[1:]))
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(RuntimeError, match=r"Data\.filter is read by a stage that does not declare it"):
        pipeline.run(config, run, until="prepare")
    assert run.record("prepare") is None
