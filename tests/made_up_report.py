"""What a stage `report` writes, of made-up answers: the measures are computed, the rest is invented."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfpipe.config.calibrate import Calibrate
from tfpipe.evaluate.artifact_table import COLUMNS, cells
from tfpipe.evaluate.calibration import calibrated
from tfpipe.evaluate.measures import compared, measures
from tfpipe.evaluate.page.page import page
from tfpipe.evaluate.page.plots import plots_of
from tfpipe.files import without_nan
from tfpipe.metrics import correct
from tfpipe.tasks import task_of

HOSTILE = (
    "<script>alert(1)</script>", '"onmouseover="alert(1)', "$x^2_{y}$", "]]></style>", "a\u202eb\u2066c",
    "no\ufffe\uffffn",
    "nul\x00\x1b[31m", "<svg onload=alert(1)>", "'; DROP & | `code` {{ 7*7 }}", "_hidden", "línea\nnueva",
)  # fmt: skip


def make_summary(
    labels: tuple[str, ...] = ("negative", "positive"),
    task: str = "single_label",
    variants: tuple[str, ...] = ("dense", "pruned", "int8"),
    rows: int = 120,
    never: tuple[int, ...] = (),
    precision: float | None = None,
) -> dict[str, Any]:
    """The content of `metrics.json`; labels of the numbers `never` are in no row."""
    random = np.random.default_rng(0)
    some = [at for at in range(len(labels)) if at not in never]
    truth = np.zeros((rows, len(labels)), np.float32)
    if task_of(task).one_label:
        truth[np.arange(rows), random.choice(some, rows)] = 1.0
    else:
        truth[:, some] = random.random((rows, len(some))) < 0.4
    logits = {name: (4.0 * truth + random.normal(0.0, 2.0, truth.shape)).astype(np.float32) for name in variants}
    settings = Calibrate(precision=precision)
    chosen = {name: calibrated(each, truth, task, labels, settings) for name, each in logits.items()}
    decisions = {name: each[0].decision for name, each in chosen.items()}
    measured = {name: measures(each, truth, task, labels, decisions[name]) for name, each in logits.items()}
    right = {name: correct(each, truth, task, decisions[name]) for name, each in logits.items()}
    counts = {name: int(count) for name, count in zip(labels, truth.sum(axis=0), strict=True)}
    artifacts = [_artifact(name, kind, at, measured[name]) for at, name in enumerate(variants) for kind in _KINDS]
    return without_nan(
        {
            "name": "made-up",
            "task": task,
            "labels": list(labels),
            "measured_on": f"all {rows} test rows",
            "artifacts": artifacts,
            "validation_accuracy": dict.fromkeys(variants, 0.8),
            "within_budget": list(variants[1:]),
            "published": [f"serving/{name}/1" for name in variants],
            "published_variants": list(variants),
            "verdict": {"variant": variants[-1], "artifact": "onnx", "path": "export/x/onnx", "shape": "b32_s64"},
            "measures": measured,
            "compared_with_dense": compared(right),
            "calibration": {name: each[1] for name, each in chosen.items()},
            "encoder": "hf:some/encoder",
            "source": ["rows.csv"],
            "made": ["pruned to 50 % zeros"] if "pruned" in variants else [],
            "data": _data(rows, counts),
            "history": {
                "train": [{"step": 5 * epoch, "epoch": float(epoch), **_scores(epoch)} for epoch in (1, 2, 3)],
                "quantize": [{"step": 2, "epoch": 0.5, "loss": None, "accuracy": 0.9, "macro_f1": 0.9}],
            },
            "training_examples_per_second": 10.0,
            "notes": {"strategy": "one_device (no GPU)", "precision": "float32"},
            "seconds": {"prepare": 1.0, "train": 61.5},
            "tfpipe": "0.1.0",
            "versions": {"tfpipe": "0.1.0", "tensorflow": "2.20.0"},
            "machine": "A processor, 2 processors",
            "saturation": None,
            "int8_instructions": ["avx512_vnni"],
            "settings": {"name": "made-up", "train": {"epochs": 3.0}},
            "command": "tfpipe run config.yaml --run-dir ../made-up-again",
        }
    )


_KINDS = ("keras", "saved_model", "onnx")


def _artifact(variant: str, kind: str, at: int, measured: dict[str, Any]) -> dict[str, Any]:
    accuracy = measured["scores"]["accuracy"]
    return {
        "variant": variant, "artifact": kind, "path": f"export/{variant}/{kind}", "split": "test",
        "rows": measured["rows"], "of": measured["rows"], "accuracy": accuracy["value"],
        "accuracy_95": [accuracy["low"], accuracy["high"]], "accuracy_change": -0.01 * at,
        "accuracy_change_95": [-0.02 * at - 0.001, 0.001], "macro_f1": measured["scores"]["macro_f1"]["value"],
        "calibration_error": measured["scores"]["calibration_error"]["value"],
        "size_bytes": 90_000_000 // (1 + at), "parameters": 22_000_000,
        "latency_ms": {"b1_s32": 9.5 - at, "b1_s128": None, "b32_s64": 100.0 - 20.0 * at},
        "max_abs_logit_diff": 1e-6, "label_agreement": 1.0, "mean_abs_probability_diff": 0.0, "sparsity": 0.5,
        "agrees": True,
    }  # fmt: skip


def _data(rows: int, counts: dict[str, int]) -> dict[str, Any]:
    tokens = {"mean": 20.5, "p50": 20, "p90": 30, "p99": 40, "max": 45}
    splits = ("train", "validation", "test")
    return {
        "files": 1,
        "rows": dict.fromkeys(splits, rows),
        "rows_per_label": dict.fromkeys(splits, counts),
        "filtered": 3,
        "unlabeled": 2,
        "rejected": {"empty label": 1},
        "duplicates": {"texts_that_repeat": 4, "across_splits": "remove"},
        "augmentation": {"augmented": 0},
        "tokens_per_row": dict.fromkeys(splits, tokens),
        "cut": {"rows": 1, "row_fraction": 0.001, "token_fraction": 0.0},
        "unknown_token_fraction": 0.0,
        "scripts": {"Latin": 1.0},
        "lengths": {"edges": [0, 10, 20, 30], "rows": {split: [1, rows - 2, 1] for split in splits}},
    }


def _scores(epoch: int) -> dict[str, float]:
    return {"loss": 1.0 / epoch, "accuracy": 0.6 + 0.1 * epoch, "macro_f1": 0.6, "calibration_error": 0.1}


def make_rows(
    summary: dict[str, Any], text: str = "a joyless, idiotic film", pair: str | None = None
) -> dict[str, Any]:
    """The content of `rows.json`: one row of each kind, with these texts."""
    names, published = summary["labels"], summary["published_variants"]
    row = {"where": "7 (rows.csv:8)", "text": text, "text_pair": pair, "right": [names[0]]}
    answers = {when: {"answer": [names[-1]], "sure": 0.75} for when in ("before", "after")}
    flipped = {"count": 1, "shown": [row | answers]}
    words = [{"text": text, "start": 0, "end": len(text), "attribution": -1.25}]
    texts = [
        {"text": each, "words": words if each == text else [], "read_to": len(each)} for each in (text, pair) if each
    ]
    explanation = {
        "texts": texts, "answer": names[-1], "label": names[-1], "is_answer": True, "probability": 0.9,
        "difference": -1.25, "remainder": 0.0, "completeness_error": 0.0, "rounding": None, "steps": 32,
        "method": "integrated_gradients",
    }  # fmt: skip
    mistake = {"row": 0, "answer": [names[-1]], "label": names[-1], "is_given": True, "probability": 0.9}
    doubted = {
        "row_id": 3, "source": text, "line": 4, "text": text, "text_pair": pair, "given": names[0],
        "predicted": names[-1], "label": names[-1], "self_confidence": 0.01, "row": 2,
    }  # fmt: skip
    return {
        "changed": {name: {"won": flipped, "lost": {"count": 0, "shown": []}} for name in published if name != "dense"},
        "mistakes": {
            "variant": published[-1], "count": 2,
            "shown": [row | mistake | {"explanation": explanation}, row | mistake | {"explanation": None}],
        },
        "label_errors": {"test": [doubted | {"explanation": explanation}], "validation": [], "train": [doubted]},
        "variant": published[-1], "method": "integrated_gradients", "rounds": True,
    }  # fmt: skip


def with_slices_and_label_errors(summary: dict[str, Any], text: str = "a text") -> dict[str, Any]:
    """The same with the keys of slices and label errors."""
    variant = summary["verdict"]["variant"]
    slices = [
        {"by": "length", "slice": "1 to 9 tokens", "rows": 12, "value": 0.5, "low": 0.25, "high": 0.75, "p": 0.01,
         "worse": True},
        {"by": text, "slice": text, "rows": 9, "value": 0.9, "low": 0.5, "high": 1.0, "p": None, "worse": False},
    ]  # fmt: skip
    return summary | {
        "slices": {variant: slices, "dense": slices},
        "slices_metric": "accuracy",
        "label_errors": {
            "test": {"rows": 120, "seen": False, "found": 1, "reason": None},
            "validation": {"rows": 0, "seen": False, "found": None, "reason": text},
            "train": {"rows": 500, "seen": True, "found": 1, "reason": None},
        },
    }


def render(summary: dict[str, Any], rows: dict[str, Any]) -> str:
    """The page."""
    artifacts = [cells(row) for row in summary["artifacts"]]
    return page(summary, rows, [column.heading for column in COLUMNS], artifacts, plots_of(summary))
