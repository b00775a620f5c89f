"""A session: the common part of the stages that train, from the prepared rows to a stored classifier.

    session = Session(config, stage, settings, keep="last", vocab_size=…)               opens rows, devices, recipe
    with session.scope():
        model = build_training_model(session.architecture(…), …)                         builds
    fitted = session.fit(model, hooks)                                                  trains
    session.save(classifier.with_weights(…), fitted.history, fitted.logits)             stores

Where a `vocab_size` is given, the model trains on the word pieces that occur: see `vocabulary`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tf_keras
from safetensors.numpy import save
from tensorflow.python.framework.ops import gradient_registry

from tfpipe.config.run import Config
from tfpipe.devices.memory import give_back
from tfpipe.devices.strategy import Choice, choose_precision, choose_strategy, precision
from tfpipe.encoders.architecture import Architecture
from tfpipe.files import write_json
from tfpipe.model.classifier import Classifier, save_classifier
from tfpipe.model.weights import get_weights
from tfpipe.rundir.record import VALIDATION_LOGITS, label_names
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.train.loop import Fit, Fitted
from tfpipe.train.recipe import Fitting, recipe_of, training_plan
from tfpipe.train.step import Hooks
from tfpipe.train.vocabulary import ActiveVocabulary, whole_table


class Session:
    """The rows, the devices, the plan and the recipe of one stage that trains."""

    def __init__(
        self,
        config: Config,
        stage: StageDirectory,
        settings: Fitting,
        *,
        keep: str,
        vocab_size: int | None,
        whole_vocabulary: bool = False,
        policy: Choice | None = None,
    ):
        """Opens the output of `prepare`, and chooses strategy, precision and batches.

        Args:
          config: the configuration, or the stage's view of it.
          stage: the stage's directory.
          settings: the section with the stage's epochs and peak learning rate.
          keep: `best` or `last`, see `Recipe`.
          vocab_size: word pieces of the encoder; None: rows keep their ids, and the model has the whole table.
          whole_vocabulary: whether pieces that do not occur are trained too.
          policy: Keras policy; None: by `train.precision`.

        Raises:
          InputError: the strategy is not to be had here, or an example does not fit into a row.
        """
        self._registered = _custom_gradients()
        self.stage, self.task = stage, config.task
        prepared = stage.inputs["prepare"]
        self._tokenizer = prepared / "tokenizer"
        self.labels = label_names(prepared)
        self.training, self.validation = (TokenTable.open(prepared / split) for split in ("train", "validation"))
        self._seed, self._dropout, self.max_length = config.seed, config.train.dropout, config.data.max_length
        self.strategy, self.chosen_strategy = choose_strategy(config.train.strategy, config.train.worker_timeout)
        self.policy = policy or choose_precision(config.train.precision)
        self.plan, self.batching = training_plan(config, self.training, self.validation)
        self.active = None
        if vocab_size is not None:
            self.active = ActiveVocabulary([self.training, self.validation], vocab_size, whole=whole_vocabulary)
        self.recipe = recipe_of(
            config,
            stage.name,
            settings,
            keep=keep,
            precision=self.policy.value,
            labels=self.labels,
            training=self.training,
        )

    @property
    def steps(self) -> int:
        """Gives the number of steps of all epochs."""
        return self.recipe.total_steps(self.plan)

    @contextmanager
    def scope(self, *, seeded: bool = False) -> Iterator[None]:
        """Makes models in the block under the strategy and the precision of the session.

        Args:
          seeded: whether weights are made new in it, from the seed of the run.
        """
        with precision(self.policy.value), self.strategy.scope():
            if seeded:
                tf_keras.utils.set_random_seed(self._seed)
            yield

    def architecture(self, architecture: Architecture) -> Architecture:
        """Gives the shape of the model that trains: `train.dropout`, and the word pieces that occur."""
        dropped = architecture.with_dropout(self._dropout)
        return dropped if self.active is None else self.active.architecture(dropped)

    def taken(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gives the weights that fit this shape, to begin with; the table of all word pieces is kept for `weights`."""
        if self.active is None:
            return weights
        self._table = whole_table(weights)
        return self.active.taken(weights)

    def fit(self, model: tf_keras.Model, hooks: Hooks | None = None) -> Fitted:
        """Trains a model in place: see `loop.Fit`."""
        self._give_back()  # what was built on the way here, such as the model that this one was made of
        rows = (self.training, self.validation)
        training, validation = rows if self.active is None else map(self.active.renumbered, rows)
        fitted = Fit(
            model,
            stage=self.stage,
            training=training,
            validation=validation,
            plan=self.plan,
            recipe=self.recipe,
            strategy=self.strategy,
            hooks=hooks,
        ).run()
        self._give_back()  # the optimizer and the graphs
        return fitted

    def weights(self, model: tf_keras.Model, fitted: Fitted) -> dict[str, np.ndarray]:
        """Gives the trained weights in transformers' naming, with the word pieces that were left out.

        Args:
          model: trained.
          fitted: result of `fit`.
        """
        weights = get_weights(model)
        return weights if self.active is None else self.active.put_back(weights, self._table, fitted.embedding_decay)

    def save(self, classifier: Classifier, history: list[dict[str, Any]], logits: np.ndarray) -> None:
        """Stores the classifier, its tokenizer, `history.json` and its answers; no model trains after it.

        Args:
          classifier: trained.
          history: of its evaluations.
          logits: [validation rows, labels] float32, its answers.
        """
        save_classifier(self.stage.path, classifier, self._tokenizer)
        write_json(self.stage.path / "history.json", history)
        (self.stage.path / VALIDATION_LOGITS).write_bytes(save({"logits": np.ascontiguousarray(logits, np.float32)}))
        self._forget_graphs()

    def _give_back(self) -> None:
        self._forget_graphs()
        give_back()

    def _forget_graphs(self) -> None:
        """Lets go of the graphs of models that are gone; no gradient is taken of one that was traced before.

        TensorFlow keeps every graph that holds a custom gradient, and the variables that it reads, as it never clears
        its registry of gradients (findings/tensorflow_custom_gradients_keep_graphs.sh). Without the session's entries
        they are freed; a sweep would grow by all of them.
        """
        for name in _custom_gradients() - self._registered:
            del gradient_registry._registry[name]


def _custom_gradients() -> set[str]:
    """Lists the gradients of `tf.custom_gradient` that TensorFlow has registered in this process."""
    return {name for name in gradient_registry._registry if name.startswith("CustomGradient-")}
