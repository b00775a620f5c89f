"""`tfpipe report RUN RUN…`: finished runs side by side."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import last_line
from safetensors.numpy import load_file, save_file
from scipy.stats import binomtest

from tfpipe.evaluate.sanity import MANY_LOOKS
from tfpipe.rundir.fingerprint import sealed
from tfpipe.tools.report.comparison import compare, differing_settings
from tfpipe.tools.report.paired import _tested
from tfpipe.tools.report.runs import looks, open_run


@pytest.fixture
def two(tiny_run, tmp_path):
    """The finished run, twice, in a directory of their own."""
    paths = [tmp_path / "runs" / name for name in ("one", "two")]
    for path in paths:
        shutil.copytree(tiny_run[1], path)
    return paths


def change(run, stage, **changes):
    """Changes a stage's record, which is sealed again."""
    path = run / stage / "stage.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | changes)))


def store_answers(run, logits):
    """Puts other answers in the place of those that `verify` stored."""
    path = run / "verify" / "logits.safetensors"
    save_file(logits, path)
    content, record = path.read_bytes(), json.loads((run / "verify" / "stage.json").read_text())
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    change(run, "verify", files_written=record["files_written"] | {path.name: entry})


def test_one_run_shows_its_table_and_its_page(tfpipe_command, tiny_run):
    code, out, error = tfpipe_command("report", tiny_run[1])
    assert code == 0 and "saved_model_text" in out and "Δlogit" in out
    assert error.split() == ["report", str(tiny_run[1] / "report" / "report.html")]


def test_two_runs_have_a_row_each_and_a_page(tfpipe_command, two, tmp_path):
    code, out, error = tfpipe_command("report", *two, "--output", tmp_path / "both.html")
    assert code == 0
    rows = [line for line in out.splitlines() if str(tmp_path) in line]
    assert [line.split()[0] for line in rows] == list(map(str, two))
    assert "+0.00 (" in rows[1] and "+0.00 (" not in rows[0]
    assert "2 runs have looked at these test rows" in error and "Warning" not in error
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert str(two[1]) in page and "No setting differs" in page and "<script" not in page


def test_the_numbers_are_those_of_the_reports(two):
    comparison = compare([open_run(str(path)) for path in two])
    first, second = comparison.rows
    assert first.against is None and second.against.p == 1.0 and second.against.won == second.against.lost == 0
    summary = json.loads((two[0] / "report" / "metrics.json").read_text())
    assert first.run.best in summary["artifacts"] and first.run.summary == summary


def test_p_values_are_mcnemars_with_holms_correction():
    before = np.arange(40) < 20
    better, worse = np.arange(40) < 30, np.arange(40) < 17
    found = _tested({1: better, 2: worse}, before, 3)
    assert found[0] is None and (found[1].won, found[1].lost) == (10, 0) and (found[2].won, found[2].lost) == (0, 3)
    assert found[1].p == pytest.approx(2 * binomtest(10, 10).pvalue)
    assert found[2].p == pytest.approx(binomtest(0, 3).pvalue)


def test_other_rows_and_other_labels_are_compared_without_a_test(two):
    runs = [open_run(str(path)) for path in two]
    runs[1].records["prepare"] = runs[1].records["prepare"].model_copy(update={"output": "another"})
    comparison = compare(runs)
    assert comparison.rows[1].against is None
    assert "different test rows" in comparison.notes[0] and "has other test rows, so" in comparison.notes[1]
    runs[1].summary["labels"] = ["x", "y"]
    comparison = compare(runs)
    assert "different labels" in comparison.notes[0] and "has other labels, so" in comparison.notes[1]


def test_another_sample_of_the_test_rows_is_not_compared(two):

    stored = load_file(two[1] / "verify" / "logits.safetensors")
    fewer = {name: each[:-1] for name, each in stored.items()}
    store_answers(two[1], fewer)
    comparison = compare([open_run(str(path)) for path in two])
    assert comparison.rows[1].against is None and "another sample" in " ".join(comparison.notes)


def test_the_test_is_of_the_artifact_that_is_shown(two):
    """An artifact that answers another run's rows otherwise than its Keras model: only the table of verify says so."""
    stored = load_file(two[1] / "verify" / "logits.safetensors")
    runs = [open_run(str(path)) for path in two]
    kind = f"{runs[1].variant}.{runs[1].best['artifact']}"
    stored[kind] = -stored[kind]
    store_answers(two[1], stored)
    against = compare([open_run(str(path)) for path in two]).rows[1].against
    assert against.won + against.lost == len(stored["rows"])


def test_links_and_other_spellings_are_the_same_run(two, tfpipe_command):
    (two[0].parent / "latest").symlink_to(two[0])
    runs = [open_run(str(path)) for path in two]
    assert looks(runs) == 2
    code, out, _ = tfpipe_command("report", two[0], f"{two[0]}/", two[0].parent / "latest")
    assert code == 0 and "against the first" not in out


def test_a_test_that_many_runs_looked_at_is_warned_of(two):
    for number in range(MANY_LOOKS - 2):
        shutil.copytree(two[0], two[0].parent / f"more-{number}")
    (two[0].parent / "no run").mkdir()
    runs = [open_run(str(path)) for path in two]
    assert looks(runs) == MANY_LOOKS
    assert f"Warning: {MANY_LOOKS} runs have looked at these test rows" in compare(runs).notes[-1]


def test_other_machines_are_said(two):
    runs = [open_run(str(path)) for path in two]
    runs[1].summary["machine"] = "another"
    assert any("different machines" in note for note in compare(runs).notes)


def test_settings_that_differ_are_listed():
    settings = [{"name": "a", "train": {"epochs": 2.0}, "seed": 1}, {"name": "b", "seed": 1}]
    runs = [SimpleNamespace(summary={"settings": each}) for each in settings]
    assert differing_settings(runs) == {"train.epochs": ["2.0", "–"]}


def test_a_run_that_is_not_finished_is_one_line(tfpipe_command, two):
    (two[1] / "publish" / "stage.json").unlink()
    line = last_line(tfpipe_command("report", two[1]))
    assert line == f"tfpipe: {two[1]}: stage publish is not done; finish the run with `tfpipe run`"
    found = tfpipe_command("report", *two)
    assert found[:2] == (2, "") and last_line(found).endswith("nothing is left to compare")
    third = two[0].parent / "three"
    shutil.copytree(two[0], third)
    code, out, error = tfpipe_command("report", *two, third)
    assert code == 0 and f"warning: left out: {two[1]}: stage publish is not done" in error and str(third) in out


def test_a_report_of_an_earlier_result_is_refused(tfpipe_command, two):
    change(two[0], "verify", output="another")
    assert "verify was done again after publish" in last_line(tfpipe_command("report", two[0]))


def test_a_changed_report_is_refused(tfpipe_command, two):
    (two[0] / "report" / "metrics.json").write_text("{}")
    assert "its content is not what stage report wrote" in last_line(tfpipe_command("report", two[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--set", "seed=1"], "--run-dir and --set are of a CONFIG"),
        (["{run}", "--output", "x.pdf"], "expected a file that ends in .html"),
        (["{run}/config.yaml", "--output", "x.html"], "--output is of directories of runs"),
        (["nothing.yaml"], "nothing.yaml: nothing is there; give the directory of a run, or the YAML file"),
        (["{run}/train"], "no run is there"),
    ],
)
def test_wrong_arguments_are_one_line(tfpipe_command, tiny_run, arguments, message):
    given = [each.format(run=tiny_run[1]) for each in arguments]
    assert re.search(re.escape(message), last_line(tfpipe_command("report", *given)))


def test_a_configuration_is_brought_up_to_date(tfpipe_command, monkeypatch, tiny_file):
    called = []
    monkeypatch.setattr("tfpipe.pipeline.run", lambda *given, **named: called.append(named))
    assert tfpipe_command("report", tiny_file)[0] == 0
    assert called == [{"until": "report", "redo": None}]


def test_a_page_that_can_t_be_written_is_one_line_before_any_work(tfpipe_command, two, tmp_path):
    for output, reason in (("nowhere/page.html", "no such directory"), ("folder.html", "is a directory")):
        (tmp_path / "folder.html").mkdir(exist_ok=True)
        found = tfpipe_command("report", *two, "--output", tmp_path / output)
        assert found[:2] == (2, "") and f"page.html: can't be written ({reason})" in last_line(found).replace(
            "folder.html", "page.html"
        )


def test_a_name_that_is_no_run_ends_the_call(tfpipe_command, two, tmp_path):
    found = tfpipe_command("report", two[0], tmp_path / "nope")
    assert found[:2] == (2, "") and "nope: no run is there" in last_line(found)
    found = tfpipe_command("report", tmp_path / "nope")
    assert found[0] == 2 and "nothing is there; give the directory of a run, or the YAML file of one" in last_line(
        found
    )


def test_one_run_by_two_names_is_shown_once(tfpipe_command, two):
    code, _, error = tfpipe_command("report", two[0], f"{two[0]}/")
    assert code == 0 and "warning: 2 names of 1 run; each is shown once" in error
