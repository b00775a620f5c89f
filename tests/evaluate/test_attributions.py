"""Integrated gradients: complete, equal to a plain sum over a fine path, and linear in what is asked."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights
from tiny_bert import tiny_head

from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import WORD_EMBEDDINGS
from tfpipe.evaluate import attributions
from tfpipe.evaluate.attributions import MOST_STEPS, PathGradients, Question
from tfpipe.evaluate.explained import GRADIENT_X_INPUT
from tfpipe.model.classifier import Classifier, differentiable_model, float_model, load_classifier
from tfpipe.tokens.fast_tokenizer import FastTokenizer, TokenIds
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

TEXTS = [
    "this film is very good and lovely",
    "this film is very bad and awful",
    "the plot was not only dull and cold but the cast is so funny and warm",
    "so the movie was weak",
    "good",
]
PAIRS = ["the cast is awful", "and great", "a story", "it is dull and dull and dull", "bad"]
MASK = tiny_vocabulary().index("[MASK]")


def classifier_of(labels, task="single_label", seed=0, **changed):
    config = TINY | {"vocab_size": len(tiny_vocabulary())}
    weights = {f"bert.{name}": value for name, value in tiny_weights(config, seed).items()} | tiny_head(labels)
    names = tuple(f"label {number}" for number in range(labels))
    return Classifier(Architecture.from_dict(config), names, task, 32, weights | changed, {})


@pytest.fixture(scope="module")
def tokenizer(tiny_run):
    return FastTokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32)


def questions_about(rows, weights):
    return [Question(row, np.array(weights, np.float32)) for row in range(len(rows.ids))]


def assert_complete(found):
    for each in found:
        assert each.error < 0.01
        assert each.tokens.sum() == pytest.approx(each.difference, abs=0.01 * max(abs(each.difference), 0.01))


@pytest.mark.parametrize("stage", ["train", "prune", "quantize"])
def test_attributions_sum_to_the_difference_of_logits_within_one_percent(tiny_run, tokenizer, stage):
    classifier = load_classifier(tiny_run[1] / stage)
    rows = tokenizer.encode(TEXTS)
    model = PathGradients.of(classifier, MASK)
    found = model.attribute(rows, questions_about(rows, [-0.5, 0.5]))
    assert_complete(found)
    inputs = rows.padded(range(len(TEXTS)), tokenizer.pad_id)
    exact = float_model(classifier)(inputs).numpy()
    assert model.rounds == (stage == "quantize")
    # An activation between two of 256 levels may be rounded to either, which moves logits by more than their digits.
    np.testing.assert_allclose(model.logits(rows), exact, atol=2e-2 if model.rounds else 2e-5)
    if not model.rounds:
        np.testing.assert_allclose([each.value for each in found], exact @ [-0.5, 0.5], atol=2e-5)
    # The baseline's value is that of the row of [MASK], which the model answers as any other.
    masked = inputs["input_ids"].copy()
    for at, ids in enumerate(rows.ids):
        masked[at, 1 : len(ids) - 1] = MASK
    unrounded = float_model(dataclasses.replace(classifier, quantization={}))
    baseline = unrounded(inputs | {"input_ids": masked}).numpy() @ [-0.5, 0.5]
    np.testing.assert_allclose([each.baseline for each in found], baseline, atol=2e-5)


def test_pairs_are_complete_and_their_separators_have_no_share(tokenizer):
    rows = tokenizer.encode(TEXTS, PAIRS)
    found = PathGradients.of(classifier_of(2), MASK).attribute(rows, questions_about(rows, [1.0, 0.0]))
    assert_complete(found)
    for each, first, ids in zip(found, rows.first_lengths, rows.ids, strict=True):
        assert np.flatnonzero(each.tokens == 0.0).tolist() == [0, first - 1, len(ids) - 1]


def test_every_label_of_several_is_complete(tokenizer):
    rows = tokenizer.encode(TEXTS)
    asked = [Question(row, np.eye(4, dtype=np.float32)[label]) for row in range(len(TEXTS)) for label in range(4)]
    model = PathGradients.of(classifier_of(4, "multi_label"), MASK)
    found = model.attribute(rows, asked)
    assert_complete(found)
    values = np.reshape([each.value for each in found], [len(TEXTS), 4])
    np.testing.assert_allclose(values, model.logits(rows), atol=1e-5)


def test_they_equal_a_plain_sum_over_a_thousand_points(tiny_run, tokenizer):
    """Of the model that is exported, by the middle of each of a thousand steps: another graph, another quadrature."""
    classifier = load_classifier(tiny_run[1] / "train")
    rows = tokenizer.encode(TEXTS[:2])
    found = PathGradients.of(classifier, MASK).attribute(rows, questions_about(rows, [0.0, 1.0]))
    model, table = float_model(classifier), classifier.weights[WORD_EMBEDDINGS]
    embedded = model.get_layer("embeddings.word_embeddings").output
    inner = tf_keras.Model({"words": embedded, **model.input}, model.output)
    for row, each in enumerate(found):
        inputs = rows.padded([row], tokenizer.pad_id)
        baseline = np.where(np.isin(rows.ids[row], [2, 3]), rows.ids[row], MASK)
        start, way = table[baseline], table[rows.ids[row]] - table[baseline]
        at = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
        words = tf.constant(start + at[:, None, None] * way)
        with tf.GradientTape() as tape:
            tape.watch(words)
            logit = inner({"words": words} | {name: np.repeat(value, 1000, 0) for name, value in inputs.items()})[:, 1]
        expected = (tape.gradient(logit, words).numpy() * way).mean(axis=0).sum(axis=-1)
        np.testing.assert_allclose(each.tokens, expected, atol=2e-3 * np.abs(expected).sum())


def test_attributions_of_a_sum_are_the_sum_of_attributions(tokenizer):
    rows = tokenizer.encode(TEXTS)
    model = PathGradients.of(classifier_of(3), MASK)
    one, other = np.array([1.0, 0.0, -2.0], np.float32), np.array([0.5, 3.0, 0.0], np.float32)
    parts = [model.attribute(rows, questions_about(rows, weights)) for weights in (one, other, one + other)]
    for first, second, both in zip(*parts, strict=True):
        if first.steps == second.steps == both.steps:
            np.testing.assert_allclose(first.tokens + second.tokens, both.tokens, atol=1e-4)
    assert any(len({each.steps for each in same}) == 1 for same in zip(*parts, strict=True))


def test_words_of_equal_part_have_equal_attributions(tokenizer):
    """Without positions, a model can't tell two equal words apart."""
    positions = "bert.embeddings.position_embeddings.weight"
    classifier = classifier_of(2, **{positions: np.zeros((64, 32), np.float32)})
    rows = tokenizer.encode(["good film is bad good film"])
    (found,) = PathGradients.of(classifier, MASK).attribute(rows, questions_about(rows, [1.0, -1.0]))
    _, good, film, _, _, good_again, film_again, _ = found.tokens
    assert good == pytest.approx(good_again, abs=1e-5) and film == pytest.approx(film_again, abs=1e-5)
    assert abs(good - film) > 1e-3


def test_a_text_alone_and_among_longer_ones_is_explained_alike(tokenizer, monkeypatch):
    model = PathGradients.of(classifier_of(2), MASK)
    rows = tokenizer.encode(TEXTS)
    together = model.attribute(rows, questions_about(rows, [1.0, -1.0]))
    monkeypatch.setattr(attributions, "_MEMORY_BYTES", 1)  # a row a call
    for text, each in zip(TEXTS[3:], together[3:], strict=True):
        alone = tokenizer.encode([text])
        (found,) = model.attribute(alone, questions_about(alone, [1.0, -1.0]))
        np.testing.assert_allclose(found.tokens, each.tokens, atol=1e-5)


def toy(function):
    """A model of three labels and word embeddings of two numbers, without a mask."""
    words = tf_keras.Input((None, 2), name="word_embeddings")
    others = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in ("attention_mask", "token_type_ids")}
    return tf_keras.Model({"word_embeddings": words, **others}, tf_keras.layers.Lambda(function)(words))


TABLE = np.array([[0.0, 0.0], [1.0, 2.0], [-3.0, 0.5], [0.25, 4.0], [1.0, -1.0]], np.float32)
KERNEL = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], np.float32)


def test_of_a_linear_model_every_method_gives_its_weights():
    """Its gradient is the same everywhere: each token has its embedding less that of [MASK], times the weights."""
    model = PathGradients(TABLE, 4, toy(lambda words: tf.reduce_sum(words, axis=1) @ KERNEL))
    rows, weights = TokenIds([np.array([0, 1, 2, 3, 3, 0], np.int32)], [6]), np.array([1.0, 0.0, -1.0], np.float32)
    expected = (TABLE[[4, 1, 2, 3, 3, 4]] - TABLE[4]) @ KERNEL @ weights
    for method, steps in ((GRADIENT_X_INPUT, 1), ("integrated_gradients", 32)):
        (found,) = model.attribute(rows, [Question(0, weights)], method)
        np.testing.assert_allclose(found.tokens, expected, atol=1e-5)
        assert found.steps == steps and found.error < 1e-5


def test_gradient_x_input_is_the_gradient_at_the_text_and_states_its_error():
    model = PathGradients(TABLE, 4, toy(lambda words: tf.reduce_sum(words**2, axis=1) @ KERNEL))
    rows, weights = TokenIds([np.array([0, 1, 2, 0], np.int32)], [4]), np.array([0.0, 0.0, 1.0], np.float32)
    (found,) = model.attribute(rows, [Question(0, weights)], GRADIENT_X_INPUT)
    way = TABLE[[1, 2]] - TABLE[4]
    np.testing.assert_allclose(found.tokens, [0.0, *(2 * TABLE[[1, 2]] * way * KERNEL[:, 2]).sum(axis=1), 0.0])
    difference = ((TABLE[[1, 2]] ** 2 - TABLE[4] ** 2) @ KERNEL[:, 2]).sum()
    assert found.difference == pytest.approx(difference)
    assert found.error == pytest.approx(abs(found.tokens.sum() - difference) / abs(difference)) and found.error > 0.1


def test_points_are_doubled_until_the_sum_is_right_or_there_are_too_many():
    def steep(by):
        return toy(lambda words: tf.tanh(by * (tf.reduce_sum(words, axis=(1, 2))[:, None] - 1.0)) * [[1.0, 0.0, 0.0]])

    rows, asked = TokenIds([np.array([0, 1, 0], np.int32)], [3]), [Question(0, np.array([1.0, 0, 0], np.float32))]
    steps = []
    for by in (1.0, 40.0, 20_000.0):
        (found,) = PathGradients(TABLE, 4, steep(by)).attribute(rows, asked)
        steps.append(found.steps)
        assert (found.error < 0.01) == (by < 1000)
    assert steps[0] == 32 < steps[1] < steps[2] == MOST_STEPS


def test_no_questions_have_no_answers(tokenizer):
    assert PathGradients.of(classifier_of(2), MASK).attribute(tokenizer.encode(TEXTS), []) == []


def test_the_differentiable_model_is_the_one_that_is_exported(tokenizer):
    classifier = classifier_of(3)
    inputs = tokenizer.encode(TEXTS, PAIRS).padded(range(len(TEXTS)), tokenizer.pad_id)
    words = classifier.weights[WORD_EMBEDDINGS][inputs.pop("input_ids")]
    given = float_model(classifier)(tokenizer.encode(TEXTS, PAIRS).padded(range(len(TEXTS)), tokenizer.pad_id))
    np.testing.assert_allclose(differentiable_model(classifier)({"word_embeddings": words, **inputs}), given, atol=1e-5)
