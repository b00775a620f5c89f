"""`tfpipe replay DIR`: an artifact's golden requests, asked again on this machine.

Enters: the directory of an artifact, with its `golden.jsonl`. Leaves: a table on standard output.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfpipe import artifacts, metrics
from tfpipe.artifacts import Format
from tfpipe.console import say
from tfpipe.devices.processor import CLIPS, cpu_flags, sums_overflow
from tfpipe.devices.strategy import float32_kept
from tfpipe.errors import GateError, InputError, told_by
from tfpipe.evaluate import golden
from tfpipe.formats.base import Requests

BATCH_SIZES = (1, 16)


@float32_kept()
def run(directory: Path, allowed: Collection[str] = ()) -> None:
    """Replays every request in every way that the artifact answers, alone and in batches, and checks the answers.

    Args:
      directory: of an artifact.
      allowed: operators that a SavedModel may have although they reach beyond the model.

    Raises:
      InputError: there is no artifact or no golden file, or the artifact is refused.
      GateError: an answer moved further than the golden file allows.
    """
    format = artifacts.format_in(directory)
    if format is None:
        markers = " nor ".join(each.marker for each in artifacts.FORMATS)
        raise InputError(f"--golden {directory}: neither {markers} there; give one such as export/dense/onnx")
    artifact, file = directory, directory / format.extras / golden.FILE
    head, requests, expected = golden.read(file)
    table = Table("artifact", "batch", "requests", "Δlogit", "agreement", "Δprobability", box=None)
    failures = []
    for kind, by_size in _answers(format, artifact, requests, allowed).items():
        for size, logits in by_size.items():
            if logits.shape != expected.shape:
                raise InputError(
                    f"{file}: answers of {expected.shape[1]} labels, {artifact} has {logits.shape[1]}; "
                    "take the golden file of this artifact"
                )
            found = metrics.differences(logits, expected, head["task"], golden.decision_of(head))
            table.add_row(
                kind,
                str(size),
                str(len(requests)),
                f"{found['max_abs_logit_diff']:.1e}",
                f"{found['label_agreement']:.2%}",
                f"{found['mean_abs_probability_diff']:.1e}",
            )
            failures += [f"{kind} in batches of {size}: {failure}" for failure in golden.exceeded(found, head)]
    Console(highlight=False).print(table)
    doubt = _doubt(head)
    if failures:
        failures += [doubt] if doubt else []
        raise GateError(f"{artifact}: answers otherwise than on {head['recorded_on']}; {'; '.join(failures)}")
    if doubt:
        say(f"warning: the answers to these requests are within the limits, but others may be wrong: {doubt}")
    print(f"{artifact}: answers as recorded by tfpipe {head['tfpipe']} on {head['recorded_on']}")


def _doubt(head: dict[str, Any]) -> str | None:
    """Tells why an artifact's 8-bit products can be wrong on this processor; None where they can't."""
    share = head.get("saturating_sums", 0.0)
    if not share or not sums_overflow(cpu_flags()):
        return None
    return (
        f"{CLIPS} ({share:.2g} of them on training rows); make the file with quantize.reduce_range: true, or set "
        "ONNX Runtime's session option session.x64quantprecision to 1, which is exact and slower"
    )


def _answers(
    format: Format, artifact: Path, requests: Requests, allowed: Collection[str]
) -> dict[str, dict[int, np.ndarray]]:
    """Asks an artifact in each way: name of the way -> batch size -> logits [requests, labels] float32."""
    try:
        return {
            answer.name: {
                size: np.concatenate(
                    [answer.ask(requests.part(start, start + size)) for start in range(0, len(requests), size)]
                )
                for size in BATCH_SIZES
            }
            for answer in format.code.load(artifact, allowed=allowed)
        }
    except InputError:
        raise
    except Exception as error:  # the runtimes raise whatever they stumbled over
        raise InputError(f"{artifact}: can't be loaded or asked ({told_by(error)}); export it again") from error
