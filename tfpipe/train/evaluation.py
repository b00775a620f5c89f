"""Evaluation of a training form over a whole table: every row once, exact."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.console import progress_bar
from tfpipe.data.batches import evaluation_batches
from tfpipe.data.plan import Batching
from tfpipe.data.token_table import TokenTable
from tfpipe.train.step import MODEL_INPUTS, model_inputs


class Evaluation:
    """Logits of a model over a table."""

    def __init__(self, model: tf_keras.Model, table: TokenTable, task: str, batching: Batching):
        """Traces nothing yet.

        Args:
          model: training form.
          table: the rows.
          task: `single_label` or `multi_label`.
          batching: shape of the batches, as in training: one shape less to compile.
        """
        self._table, self._task = table, task
        self._batches = evaluation_batches(table, batching)

        @tf.function(input_signature=[{name: self._batches.element_spec[name] for name in MODEL_INPUTS}])
        def answer(batch):
            return model(model_inputs(batch), training=False)

        self._answer = answer

    def logits(self) -> np.ndarray:
        """[rows of the table, labels] float32."""
        logits = np.zeros((self._table.num_rows, self._table.num_labels), np.float32)
        with progress_bar("evaluate", self._table.num_rows) as bar:
            for batch in self._batches:
                examples = batch["examples"].numpy()
                answers = self._answer({name: batch[name] for name in MODEL_INPUTS}).numpy()
                logits[examples[examples >= 0]] = answers[examples >= 0]
                bar.advance(int((examples >= 0).sum()))
        return logits

    def metrics(self) -> dict[str, float]:
        """See `metrics.evaluate`."""
        return metrics.evaluate(self.logits(), self._table.labels, self._task)
