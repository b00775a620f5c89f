import json
from types import SimpleNamespace

import numpy as np
import pytest

from tfpipe import pipeline
from tfpipe.config.compress import LATENCY_SHAPES, Budget
from tfpipe.evaluate.artifact_table import COLUMNS, cells, print_table
from tfpipe.evaluate.explained import GRADIENT_X_INPUT, INTEGRATED_GRADIENTS
from tfpipe.evaluate.page.page import write_page
from tfpipe.evaluate.page.summary import artifact_of, verdict_of
from tfpipe.evaluate.page.tables import score, stacked
from tfpipe.evaluate.page.words import as_json, choose, from_json
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.stages.table import stages_of

KEYS = {
    "variant", "artifact", "split", "accuracy", "macro_f1", "size_bytes", "latency_ms", "max_abs_logit_diff",
    "label_agreement", "sparsity",
}  # fmt: skip
ARTIFACTS = ("keras", "saved_model", "saved_model_text", "onnx")


@pytest.fixture(scope="module")
def summary(tiny_run):
    return json.loads((tiny_run[1] / "report" / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def card(tiny_run):
    return (tiny_run[1] / "report" / "model_card.md").read_text(encoding="utf-8")


def test_one_flat_row_per_artifact_with_the_documented_keys(summary):
    rows = summary["artifacts"]
    expected = [(variant, artifact) for variant in ("dense", "pruned", "int8") for artifact in ARTIFACTS]
    assert [(row["variant"], row["artifact"]) for row in rows] == expected
    for row in rows:
        assert row.keys() >= KEYS and row["split"] == "test"
        assert list(row["latency_ms"]) == ["b1_s32", "b1_s128", "b32_s64"]
        assert all(value is None or value > 0 for value in row["latency_ms"].values())
        assert not any(isinstance(value, dict) for key, value in row.items() if key != "latency_ms")


def test_the_numbers_are_those_of_verify_over_all_rows(summary, tiny_run):
    parity = json.loads((tiny_run[1] / "verify" / "parity.json").read_text())["comparisons"]
    large = {(each["variant"], each["artifact"]): each for each in parity if each["batch_size"] == 32}
    for row in summary["artifacts"]:
        entry = large[row["variant"], row["artifact"]]
        shared = ("rows", "of", "accuracy", "macro_f1", "calibration_error", "label_agreement")
        assert {name: row[name] for name in shared} == {name: entry[name] for name in shared}
        low, high = row["accuracy_95"]
        assert low <= row["accuracy"] <= high + 1e-12 and high - low > 0.01
        assert row["artifact"] != "keras" or (row["max_abs_logit_diff"], row["label_agreement"]) == (0.0, 1.0)


def test_the_tiny_model_has_learned_and_its_variants_too(summary):
    assert all(row["accuracy"] > 0.9 for row in summary["artifacts"])


def test_pruned_and_int8_rows_are_half_zeros_in_every_file(summary):
    for row in summary["artifacts"]:
        assert row["sparsity"] == pytest.approx(0.0 if row["variant"] == "dense" else 0.5, abs=0.01)


def test_sizes_are_those_on_disk(summary, tiny_run):
    for row in summary["artifacts"]:
        path = tiny_run[1] / row["path"]
        files = list(path.rglob("*")) if path.is_dir() else [path]
        if row["artifact"] == "keras":
            files = list(path.parent.glob("[mq]*.safetensors"))
        if row["artifact"] == "onnx":  # what a runtime loads
            files = [graph_file(path)]
        assert row["size_bytes"] == sum(file.stat().st_size for file in files if file.is_file())


def test_rows_cut_shorter_than_a_shape_have_no_latency(summary):
    for row in summary["artifacts"]:
        missing = {name for name, value in row["latency_ms"].items() if value is None}
        not_served, cut = {"b1_s32", "b1_s128", "b32_s64"}, {"b1_s128", "b32_s64"}
        assert missing == {"keras": not_served, "saved_model_text": cut}.get(row["artifact"], {"b1_s128"})


def test_the_run_is_described(summary):
    assert summary["name"] == "tiny" and summary["training_examples_per_second"] > 0
    assert summary["versions"]["tensorflow"] and summary["machine"]
    assert summary["validation_accuracy"].keys() == {"dense", "pruned", "int8"}
    assert list(summary["seconds"]) == ["prepare", "train", "prune", "quantize", "export", "verify", "publish"]


def test_the_model_card_holds_labels_data_results_and_settings(card, summary, tiny_run):
    config, directory = tiny_run
    statistics = json.loads((directory / "prepare" / "statistics.json").read_text())
    assert "labels negative, positive" in card and config.encoder.source in card
    assert config.data.source in card and f"{statistics['rows']['train']} training" in card
    assert (
        "## Results" in card
        and "## Data" in card
        and "pruned to 50 % zeros" in card
        and "8 bits (quantization-aware training)" in card
    )
    assert "learning_rate: 0.003" in card
    table = [line for line in card.splitlines() if line.startswith("| ") and "`" in line]
    assert [line.split(" | ")[1] for line in table] == [row["artifact"] for row in summary["artifacts"]]
    assert all(f"`{row['path']}`" in line for row, line in zip(summary["artifacts"], table, strict=True))


def test_the_table_of_the_card_is_markdown(card):
    lines = card.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("| variant "))
    assert set(lines[head + 1]) == {"|", "-"}
    columns = lines[head].replace(r"\|", "").count("|")
    assert lines[head + 1].count("|") == columns and lines[head + 2].count("|") == columns


def test_the_printed_table_has_one_row_per_artifact(summary, capsys):
    print_table(summary["artifacts"], summary["measured_on"])
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert captured.err == "" and max(map(len, captured.out.splitlines())) <= 132
    assert "…" not in captured.out and summary["measured_on"] in " ".join(captured.out.split())
    rows = [line for line in lines if line[:1] in (["dense"], ["pruned"], ["int8"])]
    assert [tuple(line[:2]) for line in rows] == [(row["variant"], row["artifact"]) for row in summary["artifacts"]]
    header = next(line for line in lines if "variant" in line)
    assert set(LATENCY_SHAPES) <= set(header)


def test_a_cell_without_a_latency_is_a_dash(summary):
    row = summary["artifacts"][0] | {"latency_ms": {"b1_s32": 1.26, "b1_s128": None, "b32_s64": 300.0}}
    shown = cells(row | {"accuracy": 0.8235, "accuracy_95": [0.80, 0.84], "sparsity": 0.5})
    assert shown[2:4] == ["82.35 (80.00 to 84.00)", ""] and shown[5] == "50.0%" and shown[6:9] == ["1.3", "-", "300.0"]


def test_a_change_of_accuracy_has_its_interval(summary):
    row = summary["artifacts"][4] | {"accuracy_change": -0.0123, "accuracy_change_95": [-0.02, -0.004]}
    assert cells(row)[3] == "-1.23 (-2.00 to -0.40)"


def test_no_number_is_cut_off_however_wide_the_table(summary, capsys):
    row = summary["artifacts"][2] | {"variant": "distilled", "accuracy": 1.0, "accuracy_95": [0.97, 1.0]}
    row |= {"accuracy_change": -1.0, "accuracy_change_95": [-1.0, -0.9], "size_bytes": 10**11}
    row |= {"latency_ms": dict.fromkeys(LATENCY_SHAPES, 123456.7), "sparsity": 0.99999, "label_agreement": 0.99999}
    print_table([row], "all 3 test rows")
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in cells(row)) and "…" not in printed


def test_the_largest_difference_is_that_of_both_batch_sizes(summary, tiny_run):
    parity = json.loads((tiny_run[1] / "verify" / "parity.json").read_text())["comparisons"]
    for row in summary["artifacts"]:
        own = [each for each in parity if (each["variant"], each["artifact"]) == (row["variant"], row["artifact"])]
        assert row["max_abs_logit_diff"] == max(each["max_abs_logit_diff"] for each in own) and len(own) == 2


def test_the_card_says_what_overflows_on_older_processors(summary, card):
    share = summary["saturation"]["sums"]
    assert share > 0 and f"{share * 100:.2g} % of the sums of two products overflow 16 bits" in " ".join(card.split())
    assert "quantize.reduce_range: true" in card


@pytest.fixture(scope="module")
def page(tiny_run):
    return (tiny_run[1] / "report" / "report.html").read_text(encoding="utf-8")


def test_the_page_has_the_numbers_of_metrics_json(page, summary):
    for row in summary["artifacts"]:
        shown = [stacked(cell) for cell in cells(row)]
        assert all(f">{cell.text}<" in page and (not cell.note or cell.note in page) for cell in shown)
    for measured in summary["measures"].values():
        assert all(score(name, entry).split(" (")[0] in page for name, entry in measured["scores"].items())


def test_the_page_is_made_of_both_files_alone(page, summary, tiny_run, tmp_path):
    rows = json.loads((tiny_run[1] / "report" / "rows.json").read_text(encoding="utf-8"))
    headings, shown = [column.heading for column in COLUMNS], [cells(row) for row in summary["artifacts"]]
    write_page(tmp_path, summary, rows, headings, shown)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    plots = sorted(path.name for path in (tiny_run[1] / "report" / "plots").iterdir())
    assert plots == sorted(path.name for path in (tmp_path / "plots").iterdir()) and len(plots) >= 6
    assert all((tiny_run[1] / "report" / "plots" / name).read_bytes() == (tmp_path / "plots" / name).read_bytes()
               for name in plots)  # fmt: skip


def test_metrics_and_rows_are_plain_json(tiny_run):
    def refuse(name):
        raise AssertionError(name)

    for name in ("metrics.json", "rows.json"):
        json.loads((tiny_run[1] / "report" / name).read_text(encoding="utf-8"), parse_constant=refuse)


def test_flipped_rows_and_mistakes_are_those_that_were_measured(summary, tiny_run):
    rows = json.loads((tiny_run[1] / "report" / "rows.json").read_text(encoding="utf-8"))
    for variant, change in summary["compared_with_dense"].items():
        assert {name: rows["changed"][variant][name]["count"] for name in ("won", "lost")} == {
            name: change[name] for name in ("won", "lost")
        }
    mistakes = rows["mistakes"]
    accuracy = summary["measures"][mistakes["variant"]]["scores"]["accuracy"]["value"]
    assert mistakes["variant"] == "int8" and mistakes["count"] == round(
        (1 - accuracy) * summary["measures"]["int8"]["rows"]
    )
    for row in mistakes["shown"]:
        explanation = from_json(row["explanation"])
        assert explanation.label == row["label"] and explanation.probability == pytest.approx(
            row["probability"], abs=0.05
        )
        assert (
            explanation.texts[0].text == row["text"]
            and json.loads(json.dumps(as_json(explanation))) == row["explanation"]
        )


def test_the_verdict_is_the_fastest_artifact_within_the_budget(summary):
    chosen = artifact_of(summary, summary["verdict"]["variant"], summary["verdict"]["artifact"])
    others = [row for row in summary["artifacts"] if row["artifact"] != "keras" and row["variant"] != "dense"]
    assert chosen in others
    assert all((row["latency_ms"]["b32_s64"] or 1e9) >= chosen["latency_ms"]["b32_s64"] for row in others)


def test_without_a_variant_within_the_budget_dense_is_the_verdict(summary):
    assert verdict_of(summary["artifacts"], [], Budget())["variant"] == "dense"


def test_an_artifact_that_the_budget_is_not_about_must_keep_it_too(summary):
    """The ONNX file is the fastest here, and larger than the budget of SavedModels allows."""
    rows = [
        row | {"size_bytes": 27_000_000 if row["artifact"] == "onnx" else 23_000_000, "agrees": True}
        for row in summary["artifacts"]
    ]
    for row in rows:
        row["latency_ms"] = dict.fromkeys(row["latency_ms"], 1.0 if row["artifact"] == "onnx" else 9.0)
    budget = Budget(artifact="saved_model", max_size_bytes=25_000_000)
    assert verdict_of(rows, ["int8"], budget)["artifact"] == "saved_model"
    assert verdict_of(rows, ["int8"], Budget())["artifact"] == "onnx"
    assert verdict_of(rows, ["int8"], Budget(max_latency_ms=2.0, max_size_bytes=25_000_000))["artifact"] == "onnx"


def test_large_models_are_explained_the_fast_way_and_in_part():
    def classifier(weights):
        return SimpleNamespace(weights={"bert.encoder.layer.0": np.zeros(weights), "bert.embeddings": np.zeros(10**6)})

    assert choose(classifier(10**4), [30] * 20) == (INTEGRATED_GRADIENTS, 20)
    method, rows = choose(classifier(10**8), [30] * 20)
    assert method == GRADIENT_X_INPUT and rows == 20
    assert choose(classifier(10**8), [500] * 20) == (GRADIENT_X_INPUT, 3)


def test_another_slice_prepares_and_reports_again_and_trains_nothing(copied_run, capsys):
    config, run = copied_run
    before = {name: run.record(name) for name in ("prepare", "train", "verify", "report")}
    sliced = config.model_copy(update={"report": config.report.model_copy(update={"slices": ("source",)})})
    sliced = type(config).model_validate(sliced.model_dump())
    pipeline.run(sliced, run)
    said = capsys.readouterr().err
    assert "train: up to date" in said and "publish: up to date" in said
    assert 'prepare: report.slices: absent -> ["source"]' in said and "report: report.slices" in said
    after = {name: run.record(name) for name in before}
    assert after["prepare"].fingerprint != before["prepare"].fingerprint
    assert {name: record.output for name, record in after.items() if name != "report"} == {
        name: record.output for name, record in before.items() if name != "report"
    }
    lines = json.loads((run.path / "report" / "metrics.json").read_text(encoding="utf-8"))["slices"]["dense"]
    assert [line["slice"] for line in lines if line["by"] == "source"] == ["made up"]
    assert pipeline._fingerprint(config, run, stages_of(config)[0], []).digest == before["prepare"].fingerprint
