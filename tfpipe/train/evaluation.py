"""Evaluation of a training model over a whole table: every row once, exact, shared out among all replicas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.console import progress_bar
from tfpipe.devices import tpu
from tfpipe.tokens.batches import Share, evaluation_batches, evaluation_steps
from tfpipe.tokens.plan import Batching
from tfpipe.tokens.table import TokenTable
from tfpipe.train.feed import Feed, batch_of
from tfpipe.train.step import MODEL_INPUTS, model_inputs


def shown_scores(scores: dict[str, float | None], metric: str | None = None) -> str:
    """Writes the scores that a line has room for, and the score that the choice goes by."""
    names = dict.fromkeys((*metrics.SHOWN, *([metric] if metric else ())))
    return "  ".join(f"{name} {'-' if (value := scores[name]) is None else f'{value:.4f}'}" for name in names)


class Evaluation:
    """Logits of a model over a table."""

    def __init__(
        self,
        model: tf_keras.Model,
        table: TokenTable,
        task: str,
        batching: Batching,
        strategy: tf.distribute.Strategy | None = None,
        rows: np.ndarray | None = None,
        metric: str | None = None,
    ):
        """Traces nothing yet.

        Args:
          model: a training model.
          table: the rows.
          task: `single_label` or `multi_label`.
          batching: shape of a replica's batches, as in training: one shape less to compile.
          strategy: the strategy under which the model was made; None: one device.
          rows: [n] int64, those of the table that are evaluated; None: all.
          metric: the score that the choice goes by, if any.
        """
        self._table, self._task, self._ranks = table, task, metric in metrics.RANKS
        self._strategy = strategy = strategy or tf.distribute.get_strategy()
        steps = evaluation_steps(table, batching, strategy.num_replicas_in_sync, rows=rows)

        def own_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return evaluation_batches(table, batching, steps, share=Share.of_worker(context))

        def answer(batch):
            logits = model(model_inputs({name: batch[name] for name in MODEL_INPUTS}), training=False)
            if strategy.num_replicas_in_sync == 1:
                return logits
            return tf.distribute.get_replica_context().all_gather(logits, axis=0)

        @tf.function(autograph=False)
        def answers(batches):
            return strategy.experimental_local_results(strategy.run(answer, args=(batch_of(batches, 0),)))[0]

        self._steps, self._own_batches, self._answers = steps, own_batches, answers
        self._feed: Feed | None = None

    def logits(self, asked_to_stop: Callable[[], bool] = lambda: False) -> np.ndarray | None:
        """Computes the logits, [rows of the table, labels] float32, 0 for rows not evaluated; the same on every worker.

        Args:
          asked_to_stop: called between batches; where it is true, the result is None.
        """
        logits = np.zeros((self._table.num_rows, self._table.num_labels), np.float32)
        feed = self._feed or Feed(self._strategy, self._own_batches, from_here=tpu.has_other_hosts(self._strategy))
        self._feed = None  # one that is left in the middle is not used again
        with progress_bar("evaluate", int((self._steps.examples >= 0).sum())) as bar:
            for examples in self._steps.examples:  # of all replicas, in their order
                if asked_to_stop():
                    return None
                answers = self._answers(feed.next(1)).numpy()
                logits[examples[examples >= 0]] = answers[examples >= 0]
                bar.advance(int((examples >= 0).sum()))
        self._feed = feed
        return logits

    def scores(self, logits: np.ndarray) -> dict[str, float | None]:
        """Computes the scores of the result of `logits`: see `metrics.evaluate`."""
        with np.errstate(invalid="ignore"):  # weights that are spoilt: whoever asked looks at the loss
            return metrics.evaluate(logits, self._table.labels, self._task, ranks=self._ranks)
