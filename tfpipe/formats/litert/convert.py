"""A classifier as a LiteRT file, by TensorFlow's converter."""

from __future__ import annotations

import tensorflow as tf

from tfpipe.console import native_output_hidden
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.encoders.parameters import is_embedding
from tfpipe.errors import InputError
from tfpipe.model.bert import build_inference_model
from tfpipe.model.classifier import Classifier
from tfpipe.model.weights import set_weights
from tfpipe.tasks import task_of


def converted(classifier: Classifier, length: int | None) -> bytes:
    """Makes a LiteRT file of a classifier.

    Args:
      classifier: any variant; an 8-bit variant keeps its weights as they are.
      length: of every request, one at a time; None: batches of any size and length.

    Raises:
      InputError: the converter refuses the model.
    """
    model = build_inference_model(
        classifier.architecture,
        len(classifier.labels),
        codes={name: coded for name, coded in classifier.codes.items() if is_embedding(name)},
    )
    set_weights(model, classifier.weights)

    def answer(input_ids, attention_mask, token_type_ids):
        logits = model(
            {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids},
            training=False,
        )
        return {"logits": logits, "probabilities": task_of(classifier.task).graph_probabilities(logits)}

    shape = [None, None] if length is None else [1, length]
    signature = [tf.TensorSpec(shape, tf.int32, name) for name in INFERENCE_INPUTS]
    holder = tf.Module()
    holder.answer, holder.weights = tf.function(answer, signature, autograph=False), model.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.answer.get_concrete_function()], holder)
    if classifier.quantization:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        with native_output_hidden():
            return converter.convert()
    except Exception as error:  # the converter has a class of its own, whose text is the whole graph
        raise InputError(f"export: LiteRT's converter refuses the model: {str(error)[:300]}") from error
