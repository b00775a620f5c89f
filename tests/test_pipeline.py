import csv
import json
import os
import re
import shutil
import sys
import types
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, write_encoder, write_reviews, write_wordnet

from tfpipe import cli, pipeline
from tfpipe.config.file import load_config, parse_config
from tfpipe.encoders.parameters import sparsity_of
from tfpipe.errors import GateError, InputError
from tfpipe.files import sha256_of_file
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.model.classifier import load_classifier
from tfpipe.rundir import remote
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.mirror import Mirror
from tfpipe.rundir.published import find_saved_model
from tfpipe.rundir.remote import Remote
from tfpipe.stages import table
from tfpipe.tokens.table import TokenTable
from tfpipe.tools import replay
from tfpipe.tools.predict import command
from tfpipe.tools.predict.options import Options

NAMES = ["prepare", "train", "prune", "quantize", "export", "verify", "publish", "report"]
CHANGED_BY_EVERY_RUN = {"config.yaml", ".lock"}


def changed(config, **changes):
    """The configuration with some settings replaced: dotted paths, with `__` for the dot."""
    tree = config.model_dump(mode="json")
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = tree
        for key in parents:
            node = node[key]
        node[last] = value
    return parse_config(tree, where="the test")


def reasons(config, run):
    """Stage -> why it would be done, were the stages before it as they are; the stages that hold are left out."""
    stages, found = table.stages_of(config), {}
    names = [stage.name for stage in stages]
    for stage in stages:
        if any(run.record(name) is None for name in stage.inputs if name in names):
            found[stage.name] = "reads a stage that is not done"
        else:
            reason = pipeline._why_redo(config, run, stage.name, pipeline._fingerprint(config, run, stage, names))
            found |= {} if reason is None else {stage.name: reason}
    return found


def redone(printed):
    """Stages that a run did, from what it said."""
    return [line.split()[1].rstrip(":") for line in printed.splitlines() if ": done in " in line]


def times(directory):
    """File -> when it was last written."""
    return {
        str(path.relative_to(directory)): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name not in CHANGED_BY_EVERY_RUN
    }


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_whole_run_commits_every_stage_and_publishes_every_variant(tiny_run):
    config, directory = tiny_run
    run = RunDirectory(directory)
    assert [stage.name for stage in table.stages_of(config)] == NAMES
    assert all(run.record(name).stage == name for name in NAMES)
    for variant in ("dense", "pruned", "int8"):
        assert graph_file(directory / "export" / variant / "onnx").is_file()
        versions = directory / "serving" / variant
        assert os.listdir(versions) == ["1"] and (versions / "1" / "saved_model.pb").is_file()
    for name in NAMES:
        assert run.verified(name) == directory / name
        assert not (directory / name / "checkpoints").exists() and not (directory / name / "work.json").exists()
    assert load_config(directory / "config.yaml") == config
    assert reasons(config, run) == {}


def test_a_second_run_does_nothing(copied_run, capsys):
    config, run = copied_run
    before = times(run.path)
    pipeline.run(config, run)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"[{n}/8] {name}: up to date" for n, name in enumerate(NAMES, start=1)]
    assert times(run.path) == before and printed.out == ""


def test_a_setting_of_the_report_redoes_the_report_alone(copied_run, capsys):
    config, run = copied_run
    before = times(run.path)
    pipeline.run(changed(config, train__checkpoint_every=8), run)
    printed = capsys.readouterr().err
    assert "[8/8] report: train.checkpoint_every: 7 -> 8" in printed and redone(printed) == ["report"]
    touched = {name for name, when in times(run.path).items() if before.get(name) != when}
    assert {name.split("/")[0] for name in touched} == {"report"}


def test_what_is_published_already_is_not_published_again(copied_run, capsys):
    config, run = copied_run
    before = times(run.path)
    pipeline.run(changed(config, verify__small_batch_rows=8), run)
    printed = capsys.readouterr().err
    assert redone(printed) == ["verify", "publish", "report"] and "verify.small_batch_rows: 16 -> 8" in printed
    for variant in config.variants:
        assert sorted(os.listdir(run.path / "serving" / variant)) == ["1"]
    after = times(run.path)
    kept = ("train/", "export/", *(f"serving/{variant}/" for variant in config.variants))
    assert all(after[name] == when for name, when in before.items() if name.startswith(kept))


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("name", "other", {"publish"}),  # the names under which TF Serving knows the models
        ("export__serving_version", "2.19.1", {"export", "publish"}),
        ("seed", 1, {"prepare", "train", "prune", "quantize", "verify", "publish"}),
        ("data__max_length", 16, {"prepare", "train", "prune", "quantize", "verify"}),
        ("data__label_names", {"1": "positive", "0": "negative"}, {"prepare"}),  # the order of the outputs
        ("data__split", {"train": 0.5, "validation": 0.25, "test": 0.25}, {"prepare"}),
        ("encoder__sha256", "0" * 64, {"train"}),
        ("train__learning_rate", 1e-3, {"train"}),
        ("train__dropout", 0.2, {"train", "prune", "quantize"}),
        ("train__batching", "padded", {"train", "prune", "quantize"}),
        ("train__precision", "mixed_bfloat16", {"train", "prune", "quantize"}),  # the teacher's, in quantize
        ("train__frozen_layers", 1, {"train"}),
        ("train__steps_per_execution", 2, set()),
        ("train__checkpoint_every", 5, set()),
        ("prune__sparsity", 0.25, {"prune"}),
        ("quantize__learning_rate", 1e-3, {"quantize"}),
        ("export__onnx_opset", 18, {"export"}),
        ("verify__rows", 10, {"verify"}),
        ("verify__threads", 1, {"verify"}),
        ("distill__temperature", 3.0, {"prune", "quantize"}),
        ("budget__max_size_bytes", 10**6, {"verify"}),
        ("budget__max_latency_ms", 1000.0, {"verify"}),
    ],
)
def test_a_setting_invalidates_the_stages_that_read_it(tiny_run, setting, value, expected):
    config, directory = tiny_run
    found = reasons(changed(config, **{setting: value}), RunDirectory(directory))
    assert found.keys() == expected | {"report"}  # the model card shows every setting
    assert all(setting.replace("__", ".") in reason for reason in found.values())


def test_a_setting_is_read_only_where_it_counts(tiny_run):
    config, directory = tiny_run
    run, (quantize,) = RunDirectory(directory), (s for s in table.STAGES if s.name == "quantize")

    def read(**changes):
        return pipeline._fingerprint(changed(config, **changes), run, quantize, NAMES).settings.keys()

    assert "train.precision" in read() and "train.precision" not in read(distill=None)  # the teacher's
    assert "distill.weight" in read() and "distill.weight" not in read(quantize__mode="ptq")  # nothing is trained
    assert "budget.max_size_bytes" in read(quantize__float_layers=2) and "budget.max_size_bytes" not in read()


def test_stages_of_another_run_are_taken_over(tiny_run, tmp_path, capsys):
    config, directory = tiny_run
    run, other = RunDirectory(tmp_path / "new"), RunDirectory(directory)
    pipeline.run(config, run, until="export", others=[run, other])
    assert redone(capsys.readouterr().err) == []
    for name in NAMES[:5]:
        assert run.record(name) == other.record(name)
        assert run.verified(name).joinpath("stage.json").stat().st_nlink > 1
    assert not list(run.path.glob(".*.partial"))
    # a changed setting is done here, and the other run is left alone
    before = times(directory)
    pipeline.run(changed(config, export__onnx_opset=18), run, until="export", others=[other])
    assert redone(capsys.readouterr().err) == ["export"] and times(directory) == before
    assert run.record("export") != other.record("export")


def recorded_with(run, name, **changes):
    """Writes other things into the record of a stage."""
    record = read_json(run.path / name / "stage.json")
    (run.path / name / "stage.json").write_text(json.dumps(sealed(record | changes)))


def test_a_stage_that_was_made_by_other_libraries_holds_with_a_warning(copied_run, tmp_path, capsys):
    config, run = copied_run
    here = run.record("train").versions
    recorded_with(run, "prepare", versions=here | {"nltk": "1.0", "scikit-learn": "1.0"})  # not asked for
    recorded_with(run, "train", versions=here | {"tensorflow": "2.19.0", "onnxruntime": "1.0"})
    recorded_with(run, "export", versions=here | {"tf2onnx": "1.16.1", "onnx": "1.10.0", "rensa": "0.1"})
    recorded_with(run, "verify", versions={name: each for name, each in here.items() if name != "onnxruntime"})
    warnings = [
        f"warning: train was made with tensorflow 2.19.0, {here['tensorflow']} is installed; "
        "--redo train makes it again",
        f"warning: export was made with tf2onnx 1.16.1 and onnx 1.10.0, {here['tf2onnx']} and {here['onnx']} are "
        "installed; --redo export makes it again",
    ]
    pipeline.run(config, run)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("warning")] == warnings
    assert len(said) == 10 and said[said.index(warnings[0]) - 1] == "[2/8] train: up to date"
    taking = RunDirectory(tmp_path / "taking")
    pipeline.run(config, taking, until="train", others=[run])
    assert capsys.readouterr().err.splitlines()[1:] == [f"[2/8] train: as in {run.path}", warnings[0]]


def test_a_stage_that_works_in_another_way_now_is_done_again(copied_run, monkeypatch):
    config, run = copied_run
    version = next(stage.version for stage in table.STAGES if stage.name == "train")
    stages = [replace(stage, version=version + 1) if stage.name == "train" else stage for stage in table.STAGES]
    monkeypatch.setattr(table, "STAGES", tuple(stages))
    assert reasons(config, run) == {"train": f"tfpipe changed how it works ({version} -> {version + 1})"}
    monkeypatch.setattr(pipeline, "RELEASE", "0.2")
    assert reasons(config, run) == dict.fromkeys(NAMES, "tfpipe 0.1 -> 0.2")


def test_a_new_stage_is_one_row_of_the_table(copied_run, monkeypatch, capsys):
    """The run does it, the status tells of it, and its settings redo it; no other module knows."""
    config, run = copied_run
    module = types.ModuleType("a_stage_of_a_test")
    module.run = lambda config, stage: (stage.path / "seed").write_text(f"{config.seed} {sorted(stage.inputs)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    newcomer = table.Stage("count", module.__name__, ("seed",), inputs=("prepare",))
    monkeypatch.setattr(table, "STAGES", (*table.STAGES[:2], newcomer, *table.STAGES[2:]))
    assert [each.stage for each in pipeline.status(config, run) if each.reason] == ["count"]
    pipeline.run(config, run)
    assert redone(capsys.readouterr().err) == ["count"]
    assert (run.path / "count" / "seed").read_text() == "0 ['prepare']" and run.record("count").settings == {"seed": 0}
    again = {each.stage: each.reason for each in pipeline.status(changed(config, seed=1), run)}
    assert again["count"] == "prepare would be done before it"
    module.run = lambda config, stage: config.task
    with pytest.raises(RuntimeError, match=r"Config\.task is read by a stage that does not declare it"):
        pipeline.run(config, run, redo="count")


def test_every_library_that_decides_an_output_is_recorded(tiny_run):
    _, directory = tiny_run
    recorded = read_json(directory / "train" / "stage.json")["versions"].keys()
    named = {name for stage in table.STAGES for name in stage.libraries}
    assert named - recorded <= {"tensorflow-tpu"}  # on a TPU alone


def test_a_training_that_was_helped_holds_under_the_same_help_alone(copied_run, tmp_path):
    """`train.nonfinite` changes nothing where all is well, and the result where it is not."""
    config, run = copied_run
    skipping = changed(config, train__nonfinite="skip")
    assert reasons(skipping, run).keys() == {"report"}
    record = run.record("train")
    recorded_with(run, "train", notes=record.notes | {"steps_left_out": [3], "nonfinite": "skip"})
    assert "train" not in reasons(skipping, run)
    said = "train.nonfinite: skip -> stop, and a loss or gradient was not finite"
    assert reasons(config, run)["train"] == said
    for asked, taken in ((config, None), (skipping, run.path)):
        taking = RunDirectory(tmp_path / asked.train.nonfinite)
        taking.path.mkdir()
        (train,) = (stage for stage in table.STAGES if stage.name == "train")
        assert taking.adopt("prepare", pipeline._fingerprint(asked, run, table.STAGES[0], NAMES), run)
        assert (
            pipeline._adopted(asked, taking, "train", pipeline._fingerprint(asked, run, train, NAMES), [run]) == taken
        )


def test_another_wordnet_is_other_data(tmp_path, tiny_encoder, capsys):
    synonyms = {"copies": 1, "synonyms": 1.0, "wordnet": write_wordnet(tmp_path / "wordnet", adj=["good", "great"])}
    config = tiny_config(write_reviews(tmp_path / "r.csv", 60), tiny_encoder, data__augmentation=synonyms)
    run = RunDirectory(tmp_path / "run")
    pipeline.run(config, run, until="prepare")
    assert reasons(config, run).keys().isdisjoint({"prepare"})
    write_wordnet(tmp_path / "wordnet", adj=["good", "awful"])
    index, data = (str(tmp_path / "wordnet" / name) for name in ("index.adj", "data.adj"))
    assert reasons(config, run)["prepare"] == f"content of {index}; content of {data}"
    shutil.rmtree(tmp_path / "wordnet")
    with pytest.raises(InputError, match=r"data\.augmentation\.wordnet: no index\.noun in .*wordnet-base"):
        pipeline.run(config, run, until="prepare")
    assert run.record("prepare") is not None  # nothing is removed before it can be made again
    off = changed(config, data__augmentation={"copies": 1, "swap": 0.5})
    assert "content of" not in reasons(off, run)["prepare"]


@pytest.mark.parametrize(("name", "readers"), [(name, NAMES[n + 1 :]) for n, name in enumerate(NAMES)])
def test_a_new_output_invalidates_the_stages_that_read_it(copied_run, name, readers):
    config, run = copied_run
    record = read_json(run.path / name / "stage.json")
    (run.path / name / "stage.json").write_text(json.dumps(sealed(record | {"output": "another"})))
    found = reasons(config, run)
    assert found == dict.fromkeys(readers, f"output of {name}")


def test_variants_that_are_off_are_neither_read_nor_published(copied_run, capsys):
    config, run = copied_run
    pipeline.run(changed(config, prune=None, quantize=None), run)
    printed = capsys.readouterr()
    assert redone(printed.err) == ["export", "verify", "publish", "report"] and "[6/6] report" in printed.err
    assert {row["variant"] for row in read_json(run.path / "report" / "metrics.json")["artifacts"]} == {"dense"}
    page = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert 'id="compression"' not in page and 'id="artifacts"' in page and "pruned" not in page
    assert os.listdir(run.path / "serving" / "pruned") == ["1"]  # published before: stays
    assert os.listdir(run.path / "serving" / "dense") == ["1"]  # exported again, with the same bytes
    assert [path.name for path in (run.path / "export").iterdir() if path.is_dir()] == ["dense"]


def test_without_pruning_int8_starts_from_the_dense_model(tiny_run):
    config, directory = tiny_run
    config = changed(config, prune=None)
    assert [stage.name for stage in table.stages_of(config)] == [name for name in NAMES if name != "prune"]
    found = reasons(config, RunDirectory(directory))
    assert found["quantize"] == "output of prune" and not {"prepare", "train"} & found.keys()


def test_new_rows_redo_prepare_and_until_stops_there(copied_run, tmp_path, capsys):
    config, run = copied_run
    source = write_reviews(tmp_path / "more.csv", 420)
    before = times(run.path / "train")
    pipeline.run(changed(config, data__source=str(source)), run, until="prepare")
    printed = capsys.readouterr().err
    assert f"content of {source}\n" in printed
    assert redone(printed) == ["prepare"] and times(run.path / "train") == before
    assert sum(read_json(run.path / "prepare" / "statistics.json")["rows"].values()) == 420


def test_redo_does_a_stage_that_holds(copied_run, capsys):
    config, run = copied_run
    pipeline.run(config, run, redo="prepare", until="train")
    printed = capsys.readouterr().err
    # The same rows give the same tables, so what read them still holds.
    assert redone(printed) == ["prepare"] and "[2/8] train: up to date" in printed


def test_a_failed_gate_publishes_nothing(copied_run, capsys):
    config, run = copied_run
    strict = changed(config, verify__max_logit_diff__onnx=1e-12)
    with pytest.raises(GateError, match=r"nothing is published; .*verify\.max_logit_diff\.onnx is 1e-12") as caught:
        pipeline.run(strict, run)
    assert str(run.path / "verify" / "parity.json") in str(caught.value)
    assert all(os.listdir(run.path / "serving" / variant) == ["1"] for variant in config.variants)
    assert run.record("verify") is None and reasons(strict, run).keys() == {"verify", "publish", "report"}
    assert "warning: publish/, report/ are of an earlier run\n" in capsys.readouterr().err
    with pytest.raises(InputError, match="verify changed since the last run published; serving/ holds older versions"):
        find_saved_model(run.path, "dense")
    parity = read_json(run.path / "verify" / "parity.json")
    assert parity["failures"] and all("max_logit_diff.onnx" in failure for failure in parity["failures"])


def test_a_run_that_ends_early_names_the_results_of_an_earlier_one(copied_run, capsys):
    config, run = copied_run
    shorter = changed(config, train__epochs=1)
    for until in ("train", None):
        with nullcontext() if until else pytest.raises(InputError, match="again with --redo train"):
            pipeline.run(shorter, run, until=until)
        warning = "warning: prune/, quantize/, export/, verify/, publish/, report/ are of an earlier run\n"
        assert capsys.readouterr().err.endswith(warning)
        with pytest.raises(InputError, match="train changed since the last run published"):
            find_saved_model(run.path, "int8")
        weights = run.path / "train" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    pipeline.run(config, run, until="prepare")
    assert "prepare/" not in capsys.readouterr().err


def test_without_what_was_published_it_is_published_again(copied_run, capsys):
    config, run = copied_run
    shutil.rmtree(run.path / "serving")
    pipeline.run(config, run)
    printed = capsys.readouterr().err
    assert "publish: serving/dense/1 is missing or has another size\n" in printed
    assert redone(printed) == ["publish"] and "warning" not in printed
    assert find_saved_model(run.path, "int8") == run.path / "serving" / "int8" / "1"
    assert run.record("publish").published.keys() == {
        *(f"serving/{variant}/1" for variant in config.variants),
        *(f"serving/onnx/{variant}/1" for variant in config.variants),
        *(f"serving/{name}" for name in ("README.md", "batching_parameters.txt", "models.config")),
    }
    (run.path / "serving" / "README.md").unlink()
    assert reasons(config, run)["publish"] == "serving/README.md is missing"


@pytest.fixture
def copied(monkeypatch, ram_replaces):
    """The files that are copied to and from a store, in order."""
    found, copy = [], remote.copy_file

    def recorded(source, target):
        copy(source, target)
        found.append(source)

    monkeypatch.setattr(remote, "copy_file", recorded)
    return found


@pytest.fixture
def machine(tmp_path, monkeypatch, copied):
    """A function that opens a run on a store as a machine does, which is its cache directory."""

    def opened(name, url):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        copied.clear()
        return RunDirectory(url)

    return opened


def test_a_training_that_was_killed_goes_on_on_another_machine(tiny_run, machine, monkeypatch, capsys):
    config, directory = tiny_run
    url, keep, kept = "ram://test-pipeline/runs/killed", Mirror.keep, []

    def keep_twice(mirror, name, marker):
        keep(mirror, name, marker)
        kept.append(marker)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Mirror, "keep", keep_twice)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, machine("first", url), until="train")
    run = machine("second", url)
    pipeline.run(config, run, until="train")
    printed = capsys.readouterr().err
    assert redone(printed) == ["prepare", "train"] and "prepare: up to date" in printed
    assert re.search(r"continuing .* after step \d+ of ", printed)
    assert run.record("train").output == RunDirectory(directory).record("train").output


def test_a_run_on_a_store_is_read_on_any_machine(copied_run, machine, copied, capsys):
    config, finished = copied_run
    url = "ram://test-pipeline/runs/tiny"
    run = machine("first", url)
    shutil.copytree(finished.path, run.path)
    pipeline.run(config, run)
    printed = capsys.readouterr().err
    assert printed.count("was committed on this machine alone") == 7
    assert redone(printed) == ["publish"]  # what was published here may have been published there since
    there = Remote(url)
    assert there.children() == sorted([*NAMES, "config.yaml", "serving"])
    assert all(
        (there / name / "stage.json").read_bytes() == (run.path / name / "stage.json").read_bytes() for name in NAMES
    )
    for variant in config.variants:
        assert (there / "serving" / variant).children() == ["1"]
        assert (there / "serving" / variant / 1).holds(run.path / "serving" / variant / "1")
    assert (there / "serving" / "models.config").exists()

    pipeline.run(config, machine("second", url))
    assert redone(capsys.readouterr().err) == []
    assert copied == [f"{url}/{name}/stage.json" for name in NAMES]  # nothing is read

    run = machine("third", url)
    pipeline.run(changed(config, train__checkpoint_every=8), run)
    assert redone(capsys.readouterr().err) == ["report"]
    assert run.verified("export") and (there / "report" / "metrics.json").exists()

    machine("fourth", url)
    answers = []
    for place, options in (
        (url, {"variant": "int8", "artifact": "saved_model"}),
        (url, {"variant": "int8", "artifact": "onnx"}),
        (f"{url}/serving/int8/1", {}),
        (f"{url}/serving/onnx/int8/1", {}),
    ):
        cli.predict(place, ["this film is great and lovely"], **options)
        answers.append(capsys.readouterr().out.split()[0])
    assert len(answers) == 4 and len(set(answers)) == 1 and answers[0] in ("positive", "negative")
    assert {name.removeprefix(f"{url}/").split("/")[0] for name in copied} == {"serving"}


def test_two_runs_of_one_seed_end_with_the_same_weights(tiny_run, tiny_reviews, tiny_encoder, tmp_path):
    _, directory = tiny_run
    again = RunDirectory(tmp_path / "again")
    pipeline.run(tiny_config(tiny_reviews, tiny_encoder), again, until="train")
    for file in ("model.safetensors", "history.json"):
        assert sha256_of_file(again.path / "train" / file) == sha256_of_file(directory / "train" / file)
    first, second = (RunDirectory(each).record("train").output for each in (directory, again.path))
    assert first == second and again.record("prune") is None


def test_three_stages_under_one_mirrored_strategy(tmp_path):
    """Each numbers its collective operations on where the one before it stopped: their shapes differ."""
    data = write_reviews(tmp_path / "reviews.csv", 120)
    encoder = write_encoder(tmp_path / "encoder", num_hidden_layers=1)
    config = tiny_config(data, encoder, train__strategy="mirrored", train__epochs=1)
    run = RunDirectory(tmp_path / "run")
    pipeline.run(config, run, until="quantize")
    assert run.record("train").notes["strategy"].startswith("mirrored (2 ")
    classifier = load_classifier(run.path / "quantize")
    assert sparsity_of(classifier.weights) >= 0.5
    assert all(low < high for low, high in classifier.ranges.values())


PAIR_COLUMNS = {"text": "question", "text_pair": "answer"}


def answers_of(answers):
    return answers["label"].numpy(), answers["probabilities"].numpy()


def test_pairs_with_several_labels_cleaning_and_no_pruning(tmp_path, tiny_reviews, capsys):
    with open(tiny_reviews, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:240]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "topics"])
        for number, row in enumerate(rows):
            topics = ["praise"] * (row["label"] == "1") + ["plot"] * ("plot" in row["text"])
            text, other = f"{row['text']}<br />the ﬁlm &amp; all", rows[number * 7 % len(rows)]["text"]
            writer.writerow([text, other, "|".join(topics)])
    config = tiny_config(
        tmp_path / "pairs.csv",
        write_encoder(tmp_path / "encoder", num_hidden_layers=1),
        task="multi_label",
        data__text_column="question",
        data__text_pair_column="answer",
        data__label_column="topics",
        data__label_names=None,
        data__cleaning={"html": True, "unicode": "NFKC", "stop_words": ["very"]},
        prune=None,
        calibrate={"thresholds": "half"},  # a model of one epoch has its probabilities on all sides of tuned ones
    )
    run = RunDirectory(tmp_path / "run")
    pipeline.run(config, run)
    report = json.loads((run.path / "report" / "metrics.json").read_text())
    assert {(row["variant"], row["artifact"]) for row in report["artifacts"]} == {
        (variant, kind)
        for variant in ("dense", "int8")
        for kind in ("keras", "saved_model", "saved_model_text", "onnx")
    }
    page = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert "has it, not given" in page
    shown = json.loads((run.path / "report" / "rows.json").read_text(encoding="utf-8"))["mistakes"]["shown"]
    assert all(len(row["explanation"]["texts"]) == 2 and row["text_pair"] for row in shown)
    assert sorted(path.name for path in (run.path / "serving").iterdir() if path.is_dir()) == ["dense", "int8", "onnx"]
    readme = (run.path / "serving" / "README.md").read_text(encoding="utf-8")
    assert '"text_pair": ["' in readme and 'request.inputs["text_pair"]' in readme
    assert "`label` joins the chosen names by `|`" in readme
    for variant in ("dense", "int8"):
        replay.run(run.path / "serving" / variant / "1")
        replay.run(run.path / "export" / variant / "onnx")
    table = TokenTable.open(run.path / "prepare" / "train")
    assert table.labels.sum(axis=1).min() == 0 and table.labels.sum(axis=1).max() == 2  # none, one, both
    assert table.text_pairs([0])[0] is not None
    # Raw rows to the SavedModel, their ids to its other signature: preparation cleaned as serving does.
    rows = np.arange(50)
    served = tf.saved_model.load(str(run.path / "serving" / "dense" / "1")).signatures
    raw = {"text": tf.constant(table.texts(rows)), "text_pair": tf.constant(table.text_pairs(rows))}
    assert "<br />" in table.texts([0])[0]
    tokens = {name: tf.constant(ids) for name, ids in table.padded(rows).items()}
    from_ids = served["tokens"](**tokens)["logits"].numpy()
    from_text = served["serving_default"](**raw)["logits"].numpy()
    np.testing.assert_allclose(from_text, from_ids, atol=1e-6)
    # `predict` answers the file by the run's columns, with the SavedModel: only its graph leaves out stop words.
    parity = json.loads((run.path / "verify" / "parity.json").read_text())
    for row in parity["artifacts"]:
        row["latency_ms"]["b32_s64"] = 1.0 if row["artifact"] == "onnx" else 2.0
    (run.path / "verify" / "parity.json").write_text(json.dumps(parity))
    scored, given = tmp_path / "scored.jsonl", Options(input=(str(tmp_path / "pairs.csv"),), variant="dense")
    for artifact, said in ((None, "so the SavedModel answers"), ("onnx", "so TensorFlow makes its token ids")):
        capsys.readouterr()
        command.run(str(run.path), [], replace(given, output=scored, overwrite=True, artifact=artifact))
        assert re.search(rf"onnx/dense/1: .*data\.cleaning\.stop_words.*, {said}", capsys.readouterr().err)
    found = [json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()]
    given = {name: tf.constant([row[column] for row in found]) for name, column in PAIR_COLUMNS.items()}
    for row, label, values in zip(found, *answers_of(served["serving_default"](**given)), strict=True):
        assert list(row) == ["question", "answer", "topics", "label", "labels", "probability", "probabilities"]
        assert row["label"] == label.decode() == "|".join(row["labels"])
        assert [*row["probabilities"].values()] == pytest.approx(values.tolist(), abs=1e-6)
        assert row["labels"] == [name for name, value in row["probabilities"].items() if value > 0.5]
    with pytest.raises(InputError, match="a model of text pairs; give --text-pair TEXT once for each text"):
        command.run(str(run.path), ["a film"], Options(variant="dense"))
    command.run(str(run.path), ["a film"], Options(variant="dense", text_pairs=("a plot",), output=tmp_path / "one"))
    assert json.loads((tmp_path / "one").read_text())["text_pair"] == "a plot"
