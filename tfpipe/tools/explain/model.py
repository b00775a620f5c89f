"""The classifier of a run that explains: the variant that is named, or the last one of floats.

Enters: the directory of a run, or its address on a store. Leaves: a classifier that explains texts. Explanations need
gradients, which published artifacts do not give, so the stage that made the variant is read.
"""

from __future__ import annotations

import difflib
import json
import os
from typing import NamedTuple

from tfpipe.config.data import Data
from tfpipe.console import say
from tfpipe.encoders.transformers import CONFIG
from tfpipe.errors import InputError
from tfpipe.evaluate.explained import GRADIENT_X_INPUT
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.published import is_artifact
from tfpipe.rundir.record import RECORD
from tfpipe.tools.predict.files import data_of_run
from tfpipe.variants import STAGE_OF_VARIANT, VARIANTS, Variant

_ROUNDED = "int8"
_LISTED = 20  # labels that an error names


class Stage(NamedTuple):
    """The stage that explains, and the facts about texts from its run."""

    run: RunDirectory
    variant: Variant
    data: Data

    @property
    def pairs(self) -> bool:
        """Tells whether texts come in pairs."""
        return self.data.text_pair_column is not None

    @property
    def name(self) -> str:
        """Names the classifier for people."""
        return f"{self.run.location} {self.variant.name}"


def find_stage(run: str, variant: str | None) -> Stage:
    """Finds the stage of a run that explains.

    Args:
      run: directory of a run, or its `gs://` address.
      variant: name of a variant; None: the last one of floats.

    Raises:
      InputError: no run is there, or it has not made the variant.
    """
    directory = RunDirectory(run)
    where = directory.location
    if is_artifact(directory):
        raise InputError(
            f"{where}: a published or exported model; explanations need gradients, so give the directory of its run"
        )
    if variant is not None and variant not in STAGE_OF_VARIANT:
        nearest = difflib.get_close_matches(variant, STAGE_OF_VARIANT, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise InputError(f"--variant {variant}: expected one of {', '.join(STAGE_OF_VARIANT)}{hint}")
    made = [each for each in VARIANTS if directory.committed(each.stage) is not None]
    data = data_of_run(run) if made and directory.has_file("config.yaml") else None
    if data is None:
        raise InputError(_no_run(directory))
    if variant is None:
        chosen = next((each for each in reversed(made) if each.name != _ROUNDED), made[-1])
        if made[-1] != chosen:
            say(
                f"the variant {chosen.name} explains, the last one whose activations are floats; for {made[-1].name}, "
                f"without the rounding of its activations: --variant {made[-1].name}"
            )
        return Stage(directory, chosen, data)
    chosen = next(each for each in VARIANTS if each.name == variant)
    if chosen not in made:
        raise InputError(
            f"{where}: {chosen.stage} is not done, so there is no variant {variant}; finish `tfpipe run`, or give "
            f"--variant {', '.join(each.name for each in made)}"
        )
    return Stage(directory, chosen, data)


def _no_run(directory: RunDirectory) -> str:
    """Explains the fault of a path that is no run, or of a run without a classifier."""
    where = directory.location
    if directory.has_file(RECORD):
        return (
            f"{where}: the directory of a stage; give that of its run, {os.path.dirname(os.path.abspath(str(where)))}"
        )
    if directory.has_file("config.yaml"):
        return f"{where}: train is not done yet, so nothing can explain; finish `tfpipe run`"
    if not directory.names():
        return f"{where}: no such run; give a directory such as runs/quickstart"
    return f"{where}: no run, as it has no config.yaml; explanations need the directory of a run"


def open_explainer(stage: Stage, method: str):
    """Loads the classifier of a stage, its files checked against their record.

    Args:
      stage: of a run.
      method: one of `explained.METHODS`.

    Raises:
      InputError: a file was changed, or is no longer there.
    """
    from tfpipe.evaluate.explanations import Explainer
    from tfpipe.model.classifier import load_classifier
    from tfpipe.tokens.tokenizer_settings import TokenizerSettings

    path = stage.run.verified(stage.variant.stage)
    say(f"explaining {stage.name}")
    explainer = Explainer(_calibrated(load_classifier(path), stage), TokenizerSettings.read(path), method)
    if explainer.rounds:
        say(
            "  its 8-bit weights are explained, the rounding of its activations is not: rounding has no gradient; each "
            "explanation says what it adds"
        )
    if method == GRADIENT_X_INPUT:
        say("  gradient × input is a local approximation: words may differ much from those of integrated gradients")
    return explainer


def _calibrated(classifier, stage: Stage):
    """Gives a classifier the calibration of its artifacts; leaves it as it is if `export` has not been done with it."""
    from tfpipe.evaluate.calibration import FILE, calibration_of

    run, exported = stage.run, stage.run.committed("export")
    if exported is None or exported.inputs.get(stage.variant.stage) != run.committed(stage.variant.stage).output:
        say("  export is not done with these weights: logits are as training left them, without calibration")
        return classifier
    return classifier.calibrated(*calibration_of(run.verified("export", only=[FILE]), stage.variant.name))


def labels_of(stage: Stage) -> tuple[str, ...]:
    """Reads the labels of a stage's classifier, without its weights."""
    path = stage.run.verified(stage.variant.stage, only=[CONFIG]) / CONFIG
    return tuple(json.loads(path.read_text(encoding="utf-8"))["id2label"].values())


def label_number(name: str, labels: tuple[str, ...]) -> int:
    """Gives the place of a label.

    Raises:
      InputError: the classifier has no such label.
    """
    if name in labels:
        return labels.index(name)
    nearest = difflib.get_close_matches(name, labels, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    shown = ", ".join(labels[:_LISTED]) + (", …" if len(labels) > _LISTED else "")
    raise InputError(f"--label {name}: no such label; the labels are {shown}{hint}")
