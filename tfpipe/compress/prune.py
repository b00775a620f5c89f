"""The stage `prune`: half of the dense model's kernels, or another share, become zeros.

Enters: `prepare` and `train`. Leaves: the pruned classifier in the transformers layout, and `history.json`.

The masks and their schedule are TF-MOT's (Zhu & Gupta, 2017). TF-MOT's layer wrappers are left out: they count a step
per forward pass, so micro-batches would advance the schedule, and under a mixed policy they hand TF-MOT kernels that
are cast to bfloat16. Its `Pruning` works on the variables themselves, after each update, the last one included: zeros
are exact at the end.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl import Pruning
from tensorflow_model_optimization.sparsity.keras import PolynomialDecay

from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.data.token_table import TokenTable
from tfpipe.errors import InputError
from tfpipe.model.bert import build_training_form
from tfpipe.model.weights import get_weights, load_classifier, save_classifier, set_weights, variables_by_name
from tfpipe.rundir import StageDirectory, write_json
from tfpipe.train.devices import choose_precision, choose_strategy, precision
from tfpipe.train.loop import fit
from tfpipe.train.recipe import recipe_of, training_plan
from tfpipe.train.step import Hooks
from tfpipe.train.vocabulary import ActiveVocabulary

MASK_UPDATES = 20  # over the ramp; each sorts every kernel


def run(config: Config, stage: StageDirectory) -> None:
    """Prunes and fine-tunes."""
    prepared = stage.inputs["prepare"]
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    dense = load_classifier(stage.inputs["train"])
    strategy, _ = choose_strategy(config.train.strategy)
    policy = choose_precision(config.train.precision)
    stage.choices["precision"] = str(policy)
    recipe = recipe_of(
        config,
        "prune",
        keep="last",
        precision=policy.value,
        labels=dense.labels,
        training=training,
    )
    plan, _ = training_plan(config, training, validation)
    steps = plan.steps(config.prune.epochs)
    whole = config.train.optimizer == "lamb"
    active = ActiveVocabulary([training, validation], dense.architecture.vocab_size, whole=whole)
    with precision(policy.value), strategy.scope():
        architecture = active.architecture(dense.architecture.with_dropout(config.train.dropout))
        model = build_training_form(architecture, len(dense.labels))
        set_weights(model, active.taken(dense.weights))
        masks = MagnitudeMasks(model, config.prune.sparsity, ramp_steps=round(config.prune.ramp_fraction * steps))
    say(
        f"  pruning {len(masks.kernels)} kernels to {config.prune.sparsity:.0%}, over {masks.end_step} of {steps} steps"
    )
    stage.choices["pruned_kernels"] = len(masks.kernels)

    hooks = Hooks(after_update=masks.update, tracked=masks)
    fitted = fit(
        model,
        stage=stage,
        training=active.renumbered(training),
        validation=active.renumbered(validation),
        plan=plan,
        recipe=recipe,
        strategy=strategy,
        hooks=hooks,
    )
    weights = active.put_back(get_weights(model), dense.weights, fitted.embedding_decay)
    reached = sparsity_of(weights)
    if reached < config.prune.sparsity - 0.005:
        raise InputError(
            f"prune: {reached:.1%} zeros after {steps} steps, {config.prune.sparsity:.1%} expected; "
            "set prune.epochs or prune.ramp_fraction higher"
        )
    say(f"  zeros in the encoder's kernels: {reached:.2%}")
    save_classifier(stage.path, dense.with_weights(weights), prepared / "tokenizer")
    write_json(stage.path / "history.json", fitted.history)


class MagnitudeMasks(tf.Module):
    """TF-MOT's magnitude masks over a model's encoder kernels."""

    def __init__(self, model: tf_keras.Model, sparsity: float, ramp_steps: int):
        """Makes the masks, all ones.

        Args:
          model: training form.
          sparsity: share of zeros at the end of the ramp.
          ramp_steps: steps over which sparsity rises, as a cubic, from 0.
        """
        super().__init__()
        self.end_step = max(ramp_steps, 1)
        frequency = math.ceil(self.end_step / MASK_UPDATES)
        # The last update must fall on the end of the schedule, or sparsity stays short of its goal; the end itself must
        # not move, or it might lie after the last step of all.
        begin_step = self.end_step % frequency
        self.kernels = {
            name: variable for name, variable in variables_by_name(model).items() if is_prunable(name, variable)
        }
        self.step = tf.Variable(
            0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.masks = [
            tf.Variable(
                tf.ones(kernel.shape), trainable=False, aggregation=tf.VariableAggregation.MEAN, name=f"mask_{index}"
            )
            for index, kernel in enumerate(self.kernels.values())
        ]
        thresholds = [
            tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.MEAN, name=f"threshold_{index}")
            for index in range(len(self.masks))
        ]
        self._pruning = Pruning(
            training_step_fn=lambda: self.step,
            pruning_vars=list(zip(self.kernels.values(), self.masks, thresholds, strict=True)),
            pruning_schedule=PolynomialDecay(0.0, sparsity, begin_step, self.end_step, frequency=frequency),
            block_size=(1, 1),
            block_pooling_type="AVG",
        )

    def update(self, step: tf.Tensor) -> None:
        """After the update of a step (int64, from 0): new masks when the schedule says so, then weights times masks."""
        self.step.assign(step + 1)
        self._pruning.conditional_mask_update()
        self._pruning.weight_mask_op()


def is_prunable(name: str, weight) -> bool:
    """Whether a weight is a kernel of the encoder's layers: embeddings, pooler and head stay dense."""
    return name.startswith("bert.encoder.") and name.endswith(".weight") and len(weight.shape) == 2


def sparsity_of(weights: dict) -> float:
    """Share of exact zeros in the encoder's kernels."""
    kernels = [weight for name, weight in weights.items() if is_prunable(name, weight)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
