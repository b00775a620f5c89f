"""`tfpipe replay DIR`: an artefact's golden requests, asked again on this machine.

Enters: a directory with `golden.jsonl` and a SavedModel or `model.onnx`. Leaves: a table on standard output.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tfpipe import metrics
from tfpipe.errors import GateError, InputError, told_by
from tfpipe.evaluate import golden

BATCH_SIZES = (1, 16)


def run(directory: Path, allowed: Collection[str] = ()) -> None:
    """Replays every request by every signature, one at a time and in batches, and judges the answers.

    Args:
      directory: of a SavedModel, or of `model.onnx`.
      allowed: operators that a SavedModel may have although they reach beyond the model.

    Raises:
      InputError: no artefact or no golden file there, or an artefact that is refused.
      GateError: an answer moved further than the golden file allows.
    """
    if (directory / "saved_model.pb").is_file():
        artifact, file = directory, directory / "assets.extra" / golden.FILE
    elif (directory / "model.onnx").is_file():
        artifact, file = directory / "model.onnx", directory / golden.FILE
    else:
        raise InputError(f"--golden {directory}: neither saved_model.pb nor model.onnx there; give such a directory")
    head, requests, expected = golden.read(file)
    table = Table("signature", "batch", "requests", "Δlogit", "agreement", "Δprobability", box=None)
    failures = []
    for signature, by_size in _answers(artifact, requests, allowed).items():
        for size, logits in by_size.items():
            if logits.shape != expected.shape:
                raise InputError(
                    f"{file}: answers of {expected.shape[1]} labels, {artifact} has {logits.shape[1]}; "
                    "take the golden file of this artefact"
                )
            found = metrics.differences(logits, expected, head["task"])
            table.add_row(
                signature,
                str(size),
                str(len(requests)),
                f"{found['max_abs_logit_diff']:.1e}",
                f"{found['label_agreement']:.2%}",
                f"{found['mean_abs_probability_diff']:.1e}",
            )
            failures += [f"{signature} in batches of {size}: {failure}" for failure in golden.judge(found, head)]
    Console(highlight=False).print(table)
    if failures:
        raise GateError(f"{artifact}: answers otherwise than on {head['recorded_on']}; {'; '.join(failures)}")
    print(f"{artifact}: answers as recorded by tfpipe {head['tfpipe']} on {head['recorded_on']}")


def _answers(artifact: Path, requests: golden.Requests, allowed: Collection[str]) -> dict[str, dict[int, np.ndarray]]:
    """Signature -> batch size -> logits."""
    try:
        return {
            signature: {
                size: np.concatenate(
                    [answer(requests.part(start, start + size)) for start in range(0, len(requests), size)]
                )
                for size in BATCH_SIZES
            }
            for signature, answer in golden.answers_of(artifact, allowed).items()
        }
    except InputError:
        raise
    except Exception as error:  # the runtimes raise whatever they stumbled over
        raise InputError(f"{artifact}: can't be loaded or asked ({told_by(error)}); export it again") from error
