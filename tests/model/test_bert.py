"""The classifier's two forms, against transformers' BERT and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import write_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from model.transformers_reference import record
from model.transformers_reference.record import ACTIVATIONS, CONFIG, NUM_LABELS, recorded
from safetensors import safe_open
from transformers import AutoConfig

from tfpipe.devices.strategy import precision
from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.encoders.parameters import is_kernel
from tfpipe.model.bert import build_inference_model, build_training_model
from tfpipe.model.classifier import Classifier, load_classifier, save_classifier
from tfpipe.model.weights import import_encoder, set_weights, variables_by_name
from tfpipe.tasks import TASKS

ARCHITECTURE = Architecture.from_dict(CONFIG)
NO_KEY = np.zeros(3, np.int32)
TOLERANCE = 1e-5  # seen: 1.2e-6
LAST_LAYER = f"encoder.layer.{ARCHITECTURE.num_hidden_layers - 1}.output.LayerNorm"


def padded_batch(batch_size: int, length: int = 24, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of two segments and different lengths; the first row is the longest, so that one row has padding too."""
    random = np.random.default_rng(seed)
    lengths = random.integers(4, length + 1, batch_size)
    lengths[0] = length - 5
    columns = np.arange(length)
    mask = (columns < lengths[:, None]).astype(np.int32)
    ids = random.integers(1, CONFIG["vocab_size"], (batch_size, length)).astype(np.int32) * mask
    types = ((columns >= lengths[:, None] // 2) * mask).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def training_batch(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The training model's inputs, one example a row."""
    rows, length = batch["input_ids"].shape
    return {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "segment_ids": batch["attention_mask"],
        "position_ids": np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)),
        "cls_index": np.zeros((rows, 1), np.int32),
        "dropout_key": NO_KEY,
    }


def hidden_states(model: tf_keras.Model) -> tf_keras.Model:
    return tf_keras.Model(model.input, model.get_layer(LAST_LAYER).output)


def largest_difference(first, second) -> float:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    assert first.shape == second.shape
    return float(np.abs(first - second).max())


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return record.weights()


@pytest.fixture(scope="module")
def inference_model(weights):
    model = build_inference_model(ARCHITECTURE, NUM_LABELS)
    set_weights(model, weights)
    return model


@pytest.fixture(scope="module")
def training_model(weights):
    model = build_training_model(ARCHITECTURE, NUM_LABELS)
    set_weights(model, weights)
    return model


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_states_agree_with_transformers(tmp_path, activation, rows):
    directory = write_encoder(tmp_path, hidden_act=activation)
    source = encoder_source.open_source(str(directory), None)
    ours = build_inference_model(source.architecture, NUM_LABELS)
    import_encoder(ours, source.weights(), str(directory))
    batch = {name: value[:rows] for name, value in recorded().inputs.items()}
    assert batch["attention_mask"].min() == 0 and batch["token_type_ids"].max() == 1
    layers = range(ARCHITECTURE.num_hidden_layers)
    expected = [recorded().arrays[f"{activation}.hidden.{layer}"][:rows] for layer in layers]
    outputs = [ours.get_layer(f"encoder.layer.{layer}.output.LayerNorm").output for layer in layers]
    found = tf_keras.Model(ours.input, outputs)(batch, training=False)
    # All positions, padding included: its states attend to the same tokens in both. After the last layer the class
    # token alone is left.
    assert found[-1].shape == (rows, 1, ARCHITECTURE.hidden_size) and len(found) > 1
    for one, other in zip(found, [*expected[:-1], expected[-1][:, :1]], strict=True):
        assert largest_difference(one, other) <= TOLERANCE


@pytest.mark.parametrize(
    ("activation", "task"),
    [("gelu", "single_label"), ("gelu", "multi_label"), ("gelu_new", "single_label"), ("relu", "single_label")],
)
def test_gradients_agree_with_transformers(weights, activation, task):
    """The training model, each weight that the record has a gradient of, dropout off."""
    architecture = Architecture.from_dict(CONFIG | {"hidden_act": activation}).with_dropout(0.0)
    model = build_training_model(architecture, NUM_LABELS)
    set_weights(model, weights)
    arrays, start = recorded().arrays, f"{activation}.{task}."
    variables = {
        name: variable for name, variable in variables_by_name(model).items() if f"{start}gradient.{name}" in arrays
    }
    assert len(variables) == sum(name.startswith(f"{start}gradient.") for name in arrays) > 1
    with tf.GradientTape() as tape:
        logits = model(training_batch(recorded().inputs), training=True)[:, 0]
        loss = tf.reduce_mean(TASKS[task].loss(arrays[f"{task}.targets"], logits))
        if task == "multi_label":  # transformers takes the mean over the labels, and tfpipe their sum
            loss /= NUM_LABELS
    assert largest_difference(loss, arrays[f"{start}loss"]) <= TOLERANCE
    for (name, variable), found in zip(variables.items(), tape.gradient(loss, [*variables.values()]), strict=True):
        expected = arrays[f"{start}gradient.{name}"]
        found = tf.convert_to_tensor(found).numpy()
        assert np.abs(expected).max() > 1e-3 or name.endswith("key.bias"), name  # a key's bias changes no softmax
        assert largest_difference(found.T if is_kernel(name) else found, expected) <= TOLERANCE, variable.name


def test_the_exact_and_the_tanh_gelu_are_told_apart(weights):
    """Taking one for the other would cost more than the tolerance of the parity tests."""
    batch = padded_batch(8)
    found = []
    for activation in ("gelu", "gelu_new"):
        model = build_inference_model(Architecture.from_dict(CONFIG | {"hidden_act": activation}), NUM_LABELS)
        set_weights(model, weights)
        found.append(hidden_states(model)(batch, training=False).numpy())
    assert largest_difference(*found) > 2e-4


@pytest.fixture(scope="module")
def stored(tmp_path_factory, tiny_encoder, weights):
    """A directory that `save_classifier` wrote."""
    directory = tmp_path_factory.mktemp("stored")
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    (tokenizer / "vocab.txt").write_bytes((tiny_encoder / "vocab.txt").read_bytes())
    labels = tuple("abc")
    save_classifier(directory, Classifier(ARCHITECTURE, labels, "single_label", 32, weights, {}), tokenizer)
    return directory


def test_a_stored_classifier_has_the_tensors_and_labels_of_transformers(stored):
    with safe_open(stored / "model.safetensors", framework="np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    assert shapes == recorded().shapes
    config = AutoConfig.from_pretrained(stored)
    assert config.id2label == {0: "a", 1: "b", 2: "c"} and config.num_labels == NUM_LABELS
    assert config.architectures == ["BertForSequenceClassification"]


@pytest.mark.parametrize("rows", [1, 6])
def test_logits_agree_with_transformers_on_a_stored_classifier(stored, rows):
    classifier = load_classifier(stored)
    ours = build_inference_model(classifier.architecture, len(classifier.labels))
    set_weights(ours, classifier.weights)
    batch = {name: value[:rows] for name, value in recorded().inputs.items()}
    expected = recorded().arrays["gelu.logits"][:rows]
    assert largest_difference(ours(batch, training=False), expected) <= TOLERANCE


@pytest.mark.parametrize("batch_size", [1, 8])
def test_training_model_equals_inference_model(training_model, inference_model, batch_size):
    batch = padded_batch(batch_size, seed=2)
    expected = inference_model(batch, training=False)
    assert largest_difference(training_model(training_batch(batch), training=False)[:, 0], expected) <= 1e-5


def test_padding_changes_nothing(inference_model):
    short = padded_batch(4, seed=3)
    longer = {name: np.pad(value, ((0, 0), (0, 8))) for name, value in short.items()}
    longer["input_ids"][:, -8:] = 7  # whatever stands where the mask is 0
    expected = inference_model(short, training=False)
    assert largest_difference(inference_model(longer, training=False), expected) <= 1e-5


def packed_batch(lengths: list[list[int]], row_length: int, slots: int, seed: int = 4):
    """Rows of several examples, and the same examples alone: one row each, padded."""
    random = np.random.default_rng(seed)
    packed = {
        name: np.zeros((len(lengths), row_length), np.int32)
        for name in ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    } | {"cls_index": np.zeros((len(lengths), slots), np.int32), "dropout_key": NO_KEY}
    total = sum(len(row) for row in lengths)
    alone = {name: np.zeros((total, row_length), np.int32) for name in INFERENCE_INPUTS}
    number = 0
    for row, members in enumerate(lengths):
        start = 0
        for slot, length in enumerate(members):
            here = slice(start, start + length)
            ids, types = random.integers(1, CONFIG["vocab_size"], length), np.arange(length) >= 3
            packed["input_ids"][row, here], packed["token_type_ids"][row, here] = ids, types
            packed["segment_ids"][row, here], packed["position_ids"][row, here] = slot + 1, np.arange(length)
            packed["cls_index"][row, slot] = start
            for name, value in zip(INFERENCE_INPUTS, (ids, 1, types), strict=True):
                alone[name][number, :length] = value
            start, number = start + length, number + 1
    return packed, alone


PACKED_LENGTHS = [[9, 12], [24], [5, 4, 7, 6], []]


def test_examples_packed_into_a_row_do_not_see_each_other(training_model, inference_model):
    packed, alone = packed_batch(PACKED_LENGTHS, row_length=24, slots=4)
    filled = np.array([[slot < len(row) for slot in range(4)] for row in PACKED_LENGTHS])
    found = training_model(packed, training=False).numpy()
    assert found.shape == (4, 4, NUM_LABELS)
    expected = inference_model(alone, training=False).numpy()
    assert largest_difference(found[filled], expected) <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # or it could not tell the examples apart
    merged = packed | {"segment_ids": (packed["segment_ids"] > 0).astype(np.int32)}
    assert largest_difference(training_model(merged, training=False).numpy()[filled], expected) > 1e-3


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(3, 8), min_size=0, max_size=4), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_no_example_sees_a_neighbor(training_model, lengths, seed):
    """Whatever stands in the other segments of its row, in the padding and in the other rows: the logits stay."""
    if not any(lengths):
        return
    packed, _ = packed_batch(lengths, row_length=32, slots=4, seed=seed)
    random = np.random.default_rng(seed)
    row = int(random.choice([number for number, members in enumerate(lengths) if members]))
    slot = int(random.integers(len(lengths[row])))
    own = np.zeros((4, 32), bool)
    own[row] = packed["segment_ids"][row] == slot + 1
    noise = random.integers(1, CONFIG["vocab_size"], (4, 32)).astype(np.int32)
    changed = packed | {
        "input_ids": np.where(own, packed["input_ids"], noise),
        "token_type_ids": np.where(own, packed["token_type_ids"], noise % 2),
    }
    first, second = (training_model(batch, training=False).numpy() for batch in (packed, changed))
    assert largest_difference(first[row, slot], second[row, slot]) <= 1e-6
    if sum(map(len, lengths)) > 1:
        assert largest_difference(first, second) > 1e-3  # the noise is heard where it should be


def test_gradients_of_packed_and_padded_examples_agree(training_model):
    """Each example's own gradient, of every weight, dropout off."""
    packed, alone = packed_batch(PACKED_LENGTHS, row_length=24, slots=4)
    padded = training_batch(alone)
    places = [(row, slot) for row, members in enumerate(PACKED_LENGTHS) for slot in range(len(members))]
    weights_of = training_model.trainable_variables

    @tf.function
    def gradient(batch, row, slot):
        with tf.GradientTape() as tape:
            logits = training_model(batch, training=False)[row, slot]
            loss = tf.nn.softmax_cross_entropy_with_logits(tf.constant([0.0, 1.0, 0.0]), logits)
        return [tf.convert_to_tensor(each) for each in tape.gradient(loss, weights_of)]

    for number, (row, slot) in enumerate(places):
        first = gradient(packed, tf.constant(row), tf.constant(slot))
        second = gradient(padded, tf.constant(number), tf.constant(0))
        for variable, one, other in zip(weights_of, first, second, strict=True):
            assert largest_difference(one, other) <= 1e-5, (variable.name, row, slot)
        assert max(float(np.abs(each).max()) for each in first) > 0.01


def test_a_slot_may_point_at_any_token(training_model):
    """The slots of a row may ask for one example twice, and in any order."""
    packed, _ = packed_batch(PACKED_LENGTHS, row_length=24, slots=4)
    every = training_model(packed, training=False).numpy()
    order = [2, 0, 3, 2]
    chosen = training_model(packed | {"cls_index": packed["cls_index"][:, order]}, training=False).numpy()
    assert largest_difference(chosen[2], every[2, order]) <= 1e-6


def test_mixed_bfloat16_keeps_weights_and_logits_in_float32(weights, training_model):
    with precision("mixed_bfloat16"):
        mixed = build_training_model(ARCHITECTURE, NUM_LABELS)
    set_weights(mixed, weights)
    assert {variable.dtype for variable in mixed.variables} == {tf.float32}
    batch = training_batch(padded_batch(8))
    assert hidden_states(mixed)(batch).dtype == tf.bfloat16
    logits = mixed(batch, training=False)
    assert logits.dtype == tf.float32
    difference = largest_difference(logits, training_model(batch, training=False))
    assert 0.0 < difference <= 0.1


def test_the_inference_model_is_float32_whatever_the_policy(weights, inference_model):
    with precision("mixed_bfloat16"):
        model = build_inference_model(ARCHITECTURE, NUM_LABELS)
        assert tf_keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    set_weights(model, weights)
    batch = padded_batch(4)
    assert hidden_states(model)(batch).dtype == tf.float32
    assert np.array_equal(model(batch, training=False), inference_model(batch, training=False))


def test_dropout_is_keyed(training_model):
    batch = training_batch(padded_batch(4))
    first, again, other = (
        training_model(batch | {"dropout_key": np.array(key, np.int32)}, training=True).numpy()
        for key in ((0, 5, 0), (0, 5, 0), (0, 6, 0))
    )
    still = training_model(batch, training=False).numpy()
    assert np.array_equal(first, again)
    assert largest_difference(first, other) > 1e-3 and largest_difference(first, still) > 1e-3


def test_every_dropout_has_a_salt_of_its_own(training_model):
    salts = [layer.salt for layer in training_model.layers if hasattr(layer, "salt")]
    assert len(salts) == 3 + 3 * ARCHITECTURE.num_hidden_layers
    assert len(set(salts)) == len(salts)


def test_with_dropout_replaces_both_rates():
    changed = ARCHITECTURE.with_dropout(0.0)
    assert (changed.hidden_dropout_prob, changed.attention_probs_dropout_prob) == (0.0, 0.0)
    assert ARCHITECTURE.with_dropout(None) == ARCHITECTURE
    assert Architecture.from_dict(changed.to_dict()) == changed


def test_a_point_without_a_range_stays_float(weights, inference_model):
    """Ranges act where they are given: a wide one barely, a narrow one visibly."""
    batch = padded_batch(4)
    point = "encoder.layer.0.intermediate.input"
    differences = []
    for bounds in ((-8.0, 8.0), (-0.1, 0.1)):
        model = build_inference_model(ARCHITECTURE, NUM_LABELS, {point: bounds})
        set_weights(model, weights)
        assert [layer.name for layer in model.layers if layer.name.endswith(".input")] == [point]
        differences.append(largest_difference(model(batch, training=False), inference_model(batch, training=False)))
    assert 0.0 < differences[0] < 0.1 < differences[1]
