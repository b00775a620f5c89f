"""The stage `prune`: zeros in the model's kernels, or fewer heads and columns, and fine-tuning with them.

Enters: `prepare` and the distilled classifier where there is one, else the dense one. Leaves: the pruned classifier in
the transformers layout, and `history.json`. With `method: structured`, config.json counts its heads and feed-forward
columns by layer, which transformers' BERT does not know.
"""

from __future__ import annotations

import numpy as np

from tfpipe.compress.masks import UnitMasks, WeightMasks
from tfpipe.compress.structure import remove_units
from tfpipe.compress.teacher import taught
from tfpipe.config.compress import Prune
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.encoders.parameters import ENCODER, WORD_EMBEDDINGS, sparsity_of
from tfpipe.errors import InputError
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import Classifier, load_classifier
from tfpipe.model.weights import set_weights
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.session import Session
from tfpipe.train.step import Hooks
from tfpipe.variants import made_of

# A mask ends within half a percent of its goal; with few heads, one of them is more than that.
TOLERANCE = 0.005


def run(config: Config, stage: StageDirectory) -> None:
    """Prunes and fine-tunes.

    Raises:
      InputError: the share asked for was not reached.
    """
    settings = config.prune
    base = load_classifier(stage.inputs[made_of("prune", stage.inputs)])
    session = Session(
        config,
        stage,
        settings,
        keep="last",
        vocab_size=base.architecture.vocab_size,
        whole_vocabulary=settings.embeddings,  # their mask ranks the whole table
    )
    stage.notes["precision"] = str(session.policy)
    steps = session.steps
    with session.scope():
        architecture = session.architecture(base.architecture)
        model = build_training_model(architecture, len(base.labels))
        set_weights(model, session.taken(base.weights))
        base = base.with_weights({})  # the model has them
        ramp_steps = round(settings.ramp_fraction * steps)
        if settings.method == "structured":
            masks = UnitMasks(model, architecture, settings.sparsity, ramp_steps)
        else:
            two_four = settings.method == "two_four"
            masks = WeightMasks(model, settings.sparsity, ramp_steps, two_four=two_four, embeddings=settings.embeddings)
        objective = taught(
            model, stage.inputs["train"], config, session.recipe.loss, session.policy.value, session.active
        )
    ramp = f"over {masks.end_step} of {steps} steps"
    what = {
        "magnitude": f"{len(masks.kernels)} kernels to {settings.sparsity:.0%}, {ramp}",
        "two_four": f"{len(masks.kernels)} kernels to two of four, {steps} steps",
        "structured": f"heads and columns, {settings.sparsity:.0%} of the layers, {ramp}",
    }[settings.method]
    if settings.without_effect:
        say(f"  no effect with prune.method {settings.method}: {', '.join(settings.without_effect)}")
    say(f"  pruning {what}{'' if objective is None else ', taught by the dense model'}")
    hooks = Hooks(masks.on_gradients, masks.update, tracked=masks, objective=objective, watched=masks.kernels)
    fitted = session.fit(model, hooks)
    weights = session.weights(model, fitted)
    pruned = base.with_weights(weights)
    if settings.method == "structured":
        pruned, stage.notes["removed"] = _without_units(pruned, settings, steps)
    else:
        stage.notes["zeros"] = _checked_zeros(weights, settings, steps)
    session.save(pruned, fitted.history, fitted.logits)


def _checked_zeros(weights: dict[str, np.ndarray], settings: Prune, steps: int) -> float:
    reached = sparsity_of(weights)
    _check_reached(reached, settings, steps, "zeros", TOLERANCE)
    say(f"  zeros in the encoder's kernels: {reached:.2%}")
    if settings.embeddings:
        say(f"  zeros in the word embeddings: {(weights[WORD_EMBEDDINGS] == 0).mean():.2%}")
    return reached


def _without_units(classifier: Classifier, settings: Prune, steps: int) -> tuple[Classifier, float]:
    before = classifier.architecture
    architecture, weights = remove_units(before, classifier.weights)
    sizes = [
        sum(value.size for name, value in each.items() if name.startswith(ENCODER))
        for each in (classifier.weights, weights)
    ]
    removed = 1.0 - sizes[1] / sizes[0]
    head = 4 * before.hidden_size * before.head_width / sizes[0]
    _check_reached(removed, settings, steps, "of the layers removed", TOLERANCE + head)
    say(f"  removed {removed:.2%} of the encoder layers' parameters ({sizes[0]:,} -> {sizes[1]:,})")
    for what, old, new in (
        ("heads", before.heads, architecture.heads),
        ("columns", before.widths, architecture.widths),
    ):
        say(f"  {what} by layer: {' '.join(map(str, new))} (of {' '.join(map(str, dict.fromkeys(old)))})")
    return classifier.with_weights(weights, architecture=architecture), removed


def _check_reached(reached: float, settings: Prune, steps: int, what: str, tolerance: float) -> None:
    if reached < settings.sparsity - tolerance:
        raise InputError(
            f"prune: {reached:.1%} {what} after {steps} steps, {settings.sparsity:.1%} expected; set prune.epochs "
            "higher or prune.sparsity lower"
        )
