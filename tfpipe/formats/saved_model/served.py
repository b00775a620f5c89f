"""A classifier as a SavedModel that TF Serving takes as it is.

Signatures that give `logits` and `probabilities` [batch, labels] float32 and `label` [batch] string (multi_label: the
chosen names joined by `|`, with a backslash before each `|` and each backslash in a name; "" for none, also of a model
of one label that abstains):

- `serving_default`: `text` [batch] string, and `text_pair` for a model of pairs.
- `tokens`: `input_ids`, `attention_mask`, `token_type_ids`, [batch, length] int32.

`classify` takes what `serving_default` takes. It gives `classes` [batch, labels] string, the names in the order of the
logits, and `scores` [batch, labels] float32, their probabilities: so TF Serving's Classification API names them.

A SavedModel without texts (`ServedTokens`) has `tokens` alone, as its `serving_default`.

Beside them is a function for programs that load the model with TensorFlow: `about()` gives `task` [] string and
`labels` [labels] string, the names in the order of the logits.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
import tf_keras

from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.formats.saved_model.reproducible import make_reproducible
from tfpipe.model.classifier import Classifier
from tfpipe.model.weights import codes_by_name, decoded_kernels, variables_by_name
from tfpipe.tasks import task_of
from tfpipe.tokens.tokenizer import Tokenizer


class ServedTokens(tf.Module):
    """Weights by name or as constants, and one signature, which takes token ids; nothing of Keras."""

    def __init__(self, model: tf_keras.Model, classifier: Classifier):
        """Wraps an inference model.

        Args:
          model: an inference model, holding the classifier's weights.
          classifier: gives labels and task.
        """
        super().__init__()
        self.weights = variables_by_name(model) | codes_by_name(model)
        self.decoded_kernels = decoded_kernels(model)
        labels, task = classifier.labels, classifier.task

        def answer(input_ids, attention_mask, token_type_ids):
            logits = model(
                {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids},
                training=False,
            )
            probabilities = task_of(task).graph_probabilities(logits)
            label = task_of(task).graph_label(logits, labels, classifier.decision)
            return {"logits": logits, "probabilities": probabilities, "label": label}

        def tokens(input_ids, attention_mask, token_type_ids):
            ids = dict(zip(INFERENCE_INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
            return self.answer(**_checked(ids, classifier.architecture))

        # Functions that call each other: constants would be stored once for each signature otherwise.
        ids = [tf.TensorSpec([None, None], tf.int32, name) for name in INFERENCE_INPUTS]
        self.answer = tf.function(answer, ids, autograph=False)
        self.tokens = tf.function(tokens, ids, autograph=False)
        self.about = tf.function(
            lambda: {"task": tf.constant(task), "labels": tf.constant(labels)}, input_signature=[], autograph=False
        )

    @property
    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """Gives the signatures: name -> function."""
        return {"serving_default": self.tokens}


class ServedClassifier(ServedTokens):
    """A `ServedTokens` with the tokenizer's tables and signatures that take texts."""

    def __init__(self, model: tf_keras.Model, classifier: Classifier, tokenizer: Tokenizer, *, pairs: bool):
        """Wraps an inference model.

        Args:
          model: an inference model, holding the classifier's weights.
          classifier: gives labels and task.
          tokenizer: text -> token ids.
          pairs: whether texts come in pairs.
        """
        super().__init__(model, classifier)
        self.tokenizer = tokenizer

        def text(text, text_pair=None):
            return self.answer(**tokenizer.dense(text, text_pair))

        def classify(text, text_pair=None):
            scores = self.text(*((text,) if text_pair is None else (text, text_pair)))["probabilities"]
            return {"classes": tf.tile(tf.constant([classifier.labels]), [tf.shape(scores)[0], 1]), "scores": scores}

        texts = [tf.TensorSpec([None], tf.string, name) for name in (("text", "text_pair") if pairs else ("text",))]
        self.tokenize = tf.function(tokenizer.dense, texts, autograph=False)
        self.text = tf.function(text, texts, autograph=False)
        self.classify = tf.function(classify, texts, autograph=False)

    @property
    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """Gives the signatures: name -> function."""
        return {"serving_default": self.text, "tokens": self.tokens, "classify": self.classify}


def _checked(inputs: dict[str, tf.Tensor], architecture: Architecture) -> dict[str, tf.Tensor]:
    """Passes token ids on, once operators of the graph have checked them; a wrong one fails with InvalidArgument.

    TensorFlow alone would answer some wrong requests. On a GPU an id outside a table reads zeros. On a CPU a mask of
    another length than the ids counts as its first element (TensorFlow 2.20, fused by oneDNN).

    Args:
      inputs: `input_ids`, `attention_mask`, `token_type_ids`, [batch, length] int32.
      architecture: gives the sizes of the tables.
    """
    most = (architecture.vocab_size - 1, 1, architecture.type_vocab_size - 1)
    # Tensors of different shapes can't be stacked, and an error has the name of the node that it is from.
    every = tf.stack([inputs[name] for name in INFERENCE_INPUTS], name="_and_".join(INFERENCE_INPUTS))
    length, smallest, largest = tf.shape(every)[2], tf.reduce_min(every, [1, 2]), tf.reduce_max(every, [1, 2])
    positions = architecture.max_position_embeddings
    limits = ", ".join(f"{name} from 0 to {limit}" for name, limit in zip(INFERENCE_INPUTS, most, strict=True))
    checks = [
        tf.debugging.Assert(
            (length >= 1) & (length <= positions), [f"a row has 1 to {positions} tokens; the rows have", length]
        ),
        tf.debugging.Assert(
            tf.reduce_all((smallest >= 0) & (largest <= most)),
            [f"{limits}; the smallest are", smallest, "the largest", largest],
        ),
    ]
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in inputs.items()}


@tf.autograph.experimental.do_not_convert
def save_saved_model(served: ServedTokens, directory: Path) -> None:
    """Writes the SavedModel; the same model has the same bytes."""
    tf.saved_model.save(served, str(directory), signatures=served.signatures)
    make_reproducible(directory)
