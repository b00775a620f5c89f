"""A classifier as a SavedModel that TF Serving takes as it is.

Signatures, both giving `logits` and `probabilities` [batch, labels] float32 and `label` [batch] string (multi_label:
the chosen names joined by `|`, with a backslash before each `|` and each backslash in a name; "" for none):

- `serving_default`: `text` [batch] string, and `text_pair` for a model of pairs.
- `tokens`: `input_ids`, `attention_mask`, `token_type_ids`, [batch, length] int32.

Beside them is a function for programs that load the model with TensorFlow: `about()` gives `task` [] string and
`labels` [labels] string, the names in the order of the logits.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
import tf_keras

from tfpipe.formats.saved_model.reproducible import make_reproducible
from tfpipe.model.bert import INFERENCE_INPUTS
from tfpipe.model.classifier import Classifier
from tfpipe.model.weights import variables_by_name
from tfpipe.tasks import task_of
from tfpipe.tokens.tokenizer import Tokenizer


class ServedClassifier(tf.Module):
    """What is saved: weights by name or as constants, the tokenizer's tables, two signatures; nothing of Keras."""

    def __init__(self, model: tf_keras.Model, classifier: Classifier, tokenizer: Tokenizer, *, pairs: bool):
        """Wraps an inference model.

        Args:
          model: an inference model, holding the classifier's weights.
          classifier: gives labels and task.
          tokenizer: text -> token ids.
          pairs: whether texts come in pairs.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.weights = variables_by_name(model)
        labels, task = classifier.labels, classifier.task

        def tokens(input_ids, attention_mask, token_type_ids):
            logits = model(
                {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids},
                training=False,
            )
            probabilities = task_of(task).graph_probabilities(logits)
            label = task_of(task).graph_label(logits, labels)
            return {"logits": logits, "probabilities": probabilities, "label": label}

        # A function of its own, which the other signature calls: constants would be stored twice otherwise.
        ids = tf.TensorSpec([None, None], tf.int32)
        self.tokens = tf.function(
            tokens,
            input_signature=[tf.TensorSpec(ids.shape, ids.dtype, name) for name in INFERENCE_INPUTS],
        )
        columns = ("text", "text_pair") if pairs else ("text",)
        texts = [tf.TensorSpec([None], tf.string, name) for name in columns]
        self.tokenize = tf.function(tokenizer.dense, input_signature=texts)
        if pairs:
            self.text = tf.function(
                lambda text, text_pair: self.tokens(**tokenizer.dense(text, text_pair)), input_signature=texts
            )
        else:
            self.text = tf.function(lambda text: self.tokens(**tokenizer.dense(text)), input_signature=texts)
        self.about = tf.function(lambda: {"task": tf.constant(task), "labels": tf.constant(labels)}, input_signature=[])


def save_saved_model(served: ServedClassifier, directory: Path) -> None:
    """Writes the SavedModel; the same one has the same bytes."""
    signatures = {"serving_default": served.text, "tokens": served.tokens}
    tf.saved_model.save(served, str(directory), signatures=signatures)
    make_reproducible(directory)
