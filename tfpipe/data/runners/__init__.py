"""Runners: blocks worked on by processes of this machine or by Apache Beam, chosen here."""

from __future__ import annotations

from pathlib import Path

from tfpipe.config.data import Data
from tfpipe.data.runners.local import LocalRunner


def runner_of(data: Data, scratch: Path) -> LocalRunner:
    """Makes the runner that `data.runner` names.

    Args:
      data: the settings.
      scratch: directory on this machine for work in progress.

    Raises:
      InputError: it needs Apache Beam, which is not installed.
    """
    if data.runner == "local":
        return LocalRunner(data)
    from tfpipe.data.runners.beam import BeamRunner  # an extra

    return BeamRunner(data, scratch)
