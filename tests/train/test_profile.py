"""The profile of some steps: where TensorBoard's plugin looks, and without a trace in the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import tiny_config
from test_loop import Killed, do_fit, fitted, killed_before, training, validation, with_settings  # noqa: F401

from tfpipe.config.train import MOST_PROFILED
from tfpipe.errors import InputError
from tfpipe.stages import table
from tfpipe.train import loop


def profiles(logs: Path) -> list[Path]:
    """Where the profile plugin looks: a directory for each profile, with a file for each host."""
    return sorted(logs.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("together", [1, 2], ids=["a step a call", "two steps a call"])
def test_a_profiled_fit_is_the_same(fitted, do_fit, tmp_path, capsys, together):  # noqa: F811
    result = do_fit(tmp_path, with_settings(profile_steps=(4, 5), steps_per_execution=together))
    (profile,) = profiles(result.stage.logs)
    assert profile.stat().st_size > 1000 and b"train" in profile.read_bytes()
    assert "profile of steps 4 to 5" in capsys.readouterr().err
    assert result.sha256 == fitted.sha256 and result.history == fitted.history
    assert profiles(fitted.stage.logs) == []


def test_a_fit_that_ends_within_its_profile_keeps_it(do_fit, tmp_path, monkeypatch, capsys):  # noqa: F811
    recipe = with_settings(profile_steps=(5, 40))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "make_train_step", killed_before(6))
        do_fit(tmp_path, recipe)
    assert len(profiles(tmp_path / "logs")) == 1
    do_fit(tmp_path, with_settings(profile_steps=(8, 9)))
    assert "train.profile_steps [8, 9]: no effect here, as there are 7 steps" in capsys.readouterr().err
    assert len(profiles(tmp_path / "logs")) == 1


@pytest.mark.parametrize("steps", [[5, 4], [0, 3], [3], [1, MOST_PROFILED + 1]])
def test_steps_that_are_none(tiny_reviews, tiny_encoder, steps):
    with pytest.raises(InputError, match=r"train\.profile_steps"):
        tiny_config(tiny_reviews, tiny_encoder, train__profile_steps=steps)


def test_it_is_in_no_fingerprint():
    assert "train.profile_steps" in table.WITHOUT_EFFECT
    assert all("train.profile_steps" not in stage.settings for stage in table.STAGES)
