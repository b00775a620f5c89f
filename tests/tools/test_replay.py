"""`tfpipe verify --golden DIR`: the artefact that was exported answers as recorded, another one does not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tfpipe.errors import GateError, InputError
from tfpipe.tools import replay as tool


@pytest.mark.parametrize("place", ["serving/dense/1", "serving/int8/1", "export/pruned", "export/int8"])
def test_what_was_exported_passes(tiny_run, capsys, place):
    tool.run(tiny_run[1] / place)
    printed = capsys.readouterr().out
    signatures = ("serving_default", "tokens") if place.startswith("serving") else ("onnx",)
    for signature in signatures:
        assert sum(line.split()[:1] == [signature] for line in printed.splitlines()) == len(tool.BATCH_SIZES)
    assert "answers as recorded by tfpipe" in printed


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_another_model_fails_and_says_by_how_much(tiny_run, tmp_path, variant):
    exported = tiny_run[1] / "export" / variant
    for name in ("model.onnx", "golden.jsonl"):
        shutil.copy(exported / name, tmp_path)
    head, *lines = (tmp_path / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    moved = [json.loads(line) for line in lines]
    for line in moved:
        line["logits"] = list(np.array(line["logits"]) * [1.0, -1.0])
    content = "\n".join([head, *(json.dumps(line) for line in moved)])
    (tmp_path / "golden.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(GateError) as error:
        tool.run(tmp_path)
    message = str(error.value)
    assert "answers otherwise than on" in message and "\n" not in message
    assert ("mean_abs_probability_diff is" if variant == "int8" else "max_abs_logit_diff is") in message


def test_what_is_no_artefact_is_refused(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"neither saved_model\.pb nor model\.onnx"):
        tool.run(tmp_path)
    shutil.copy(tiny_run[1] / "export" / "dense" / "model.onnx", tmp_path)
    with pytest.raises(InputError, match="not a golden file of tfpipe"):
        tool.run(tmp_path)
