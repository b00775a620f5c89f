"""The record of transformers' answers, and the script that makes it."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from model.transformers_reference import record
from model.transformers_reference.record import HERE, digest, recorded, weights


def test_the_record_is_of_the_weights_that_the_tests_make():
    """One bit of another weight is noticed, and so are another name and another shape."""
    assert recorded().facts["weights_sha256"] == digest(weights())
    for change in (
        {"classifier.bias": np.nextafter(weights()["classifier.bias"], np.float32(9))},
        {"classifier.bias": weights()["classifier.bias"][None]},
        {"more": np.zeros(0, np.float32)},
    ):
        assert digest(weights() | change) != digest(weights())


def test_a_record_of_other_weights_is_refused(monkeypatch):
    changed = weights()
    changed["bert.pooler.dense.bias"][0] += 1.0
    monkeypatch.setattr(record, "weights", lambda: changed)
    recorded.cache_clear()
    with pytest.raises(AssertionError, match="the record is of other weights"):
        recorded()


@pytest.mark.slow
def test_transformers_still_answers_as_recorded(pytorch):
    ended = subprocess.run([pytorch, HERE / "make.py", "--check"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(recorded().arrays)} arrays are as recorded" in ended.stdout
