"""Weights by name: between models, from an encoder, to disk and back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError
from tfpipe.model.bert import build_inference_model, build_training_model
from tfpipe.model.classifier import QUANTIZATION_FILE, WEIGHTS_FILE, Classifier, load_classifier, save_classifier
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import get_weights, import_encoder, set_weights, variables_by_name
from tfpipe.stages.quantize import quantization_aware

CONFIG = TINY | {"vocab_size": len(tiny_vocabulary())}
ARCHITECTURE = Architecture.from_dict(CONFIG)
HEAD = {"classifier.weight", "classifier.bias"}
POOLER = {"pooler.dense.weight", "pooler.dense.bias"}


def random_weights(like: dict[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=value.shape).astype(np.float32) for name, value in like.items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype, name
        assert np.array_equal(value, second[name]), name


@pytest.fixture(scope="module")
def model():
    """Read by many tests, and given new weights by some: none relies on what it holds."""
    return build_inference_model(ARCHITECTURE, 2)


@pytest.fixture
def encoder() -> dict[str, np.ndarray]:
    return tiny_weights(CONFIG)


@pytest.fixture
def classifier(model) -> Classifier:
    return Classifier(
        architecture=ARCHITECTURE,
        labels=("schlecht", 'größer"|', "日本"),
        task="multi_label",
        max_length=32,
        weights=random_weights(get_weights(model)),
        quantization={"pooler.input.minimum": np.float32(-1.5), "pooler.input.maximum": np.float32(2.25)},
    )


@pytest.fixture
def tokenizer(tmp_path, tiny_encoder):
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(tiny_encoder / name, directory / name)
    return directory


def test_names_and_shapes_are_those_of_transformers(model):
    expected = {f"bert.{name}": value.shape for name, value in tiny_weights(CONFIG).items()}
    expected |= {"classifier.weight": (2, 32), "classifier.bias": (2,)}
    assert {name: value.shape for name, value in get_weights(model).items()} == expected
    assert len(model.weights) == len(expected)  # none is left out


@pytest.mark.parametrize("build", [build_inference_model, build_training_model])
def test_set_then_get(build):
    model = build(ARCHITECTURE, 2)
    weights = random_weights(get_weights(model), seed=3)
    set_weights(model, weights)
    assert_same(get_weights(model), weights)


def test_weights_move_through_the_wrappers_of_quantization(model):
    """TF-MOT's wrappers put other tensors where a layer keeps its kernel."""
    float_model = build_training_model(ARCHITECTURE, 2)
    points = [layer.name for layer in float_model.layers if isinstance(layer, QuantizationPoint)]
    aware = quantization_aware(float_model, dict.fromkeys(points, (-4.0, 4.0)))
    assert_same(get_weights(aware), get_weights(float_model))
    weights = random_weights(get_weights(model), seed=4)
    set_weights(aware, weights)
    assert_same(get_weights(aware), weights)
    assert variables_by_name(aware).keys() == variables_by_name(float_model).keys()


def test_get_weights_copies(model):
    before = get_weights(model)
    kept = {name: value.copy() for name, value in before.items()}
    set_weights(model, random_weights(before, seed=5))
    assert_same(before, kept)


def test_set_weights_names_what_does_not_fit(model):
    weights = get_weights(model)
    weights["bert.pooler.dense.weight"] = np.zeros((32, 31), np.float32)
    with pytest.raises(InputError, match=r"bert\.pooler\.dense\.weight: shape \[31, 32\] does not fit \[32, 32\]"):
        set_weights(model, weights)


def test_a_layer_without_a_name_on_disk_is_refused():
    inputs = tf_keras.Input((4,))
    model = tf_keras.Model(inputs, tf_keras.layers.BatchNormalization(name="odd")(inputs))
    with pytest.raises(TypeError, match="odd"):
        variables_by_name(model)


def test_import_takes_the_encoder_and_makes_the_head(model, encoder, capsys):
    before = get_weights(model)
    report = import_encoder(model, encoder, "here")
    assert set(report["made_new"]) == HEAD and report["skipped"] == []
    expected = {f"bert.{name}": value for name, value in encoder.items()}
    assert_same(get_weights(model), expected | {name: before[name] for name in HEAD})
    said = capsys.readouterr().err
    assert f"encoder here: {len(encoder)} tensors taken, 2 made new (classifier.weight, classifier.bias)" in said
    assert "not used" not in said


def test_import_reports_what_it_skips(model, encoder, capsys):
    extra = {"cls.predictions.bias": np.zeros(3, np.float32), "embeddings.position_ids": np.arange(64)}
    report = import_encoder(model, encoder | extra, "here")
    assert report["skipped"] == sorted(extra)
    said = capsys.readouterr().err
    assert f"{len(encoder)} tensors taken" in said
    assert "not used from it: cls.predictions.bias, embeddings.position_ids" in said


def test_import_without_a_pooler_makes_one(model, encoder):
    for name in POOLER:
        del encoder[name]
    before = get_weights(model)
    report = import_encoder(model, encoder, "here")
    assert set(report["made_new"]) == POOLER | HEAD
    after = get_weights(model)
    for name in POOLER:
        assert np.array_equal(after[f"bert.{name}"], before[f"bert.{name}"])


@pytest.mark.parametrize(
    "missing",
    ["embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.key.bias", "embeddings.LayerNorm.weight"],
)
def test_import_fails_on_a_missing_tensor(model, encoder, missing):
    del encoder[missing]
    with pytest.raises(InputError) as error:
        import_encoder(model, encoder, "here")
    message = str(error.value)
    assert f"encoder here: tensor {missing} is missing" in message and "\n" not in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings.position_embeddings.weight", (63, 32)),
        ("encoder.layer.0.intermediate.dense.weight", (65, 32)),
        ("pooler.dense.bias", (31,)),
    ],
)
def test_import_fails_on_a_shape_that_does_not_fit(model, encoder, name, shape):
    encoder[name] = np.zeros(shape, np.float32)
    with pytest.raises(InputError) as error:
        import_encoder(model, encoder, "here")
    message = str(error.value)
    assert f"encoder here: tensor {name}: shape" in message and "\n" not in message


def test_import_leaves_the_head_of_another_task(model, encoder):
    head = {"classifier.weight": np.ones((5, 32), np.float32), "classifier.bias": np.ones(5, np.float32)}
    before = get_weights(model)
    report = import_encoder(model, encoder | head, "here")
    assert set(report["made_new"]) == HEAD
    after = get_weights(model)
    for name in HEAD:
        assert np.array_equal(after[name], before[name])


def test_import_takes_a_head_that_fits(model, encoder):
    head = {"classifier.weight": np.ones((2, 32), np.float32), "classifier.bias": np.ones(2, np.float32)}
    assert import_encoder(model, encoder | head, "here") == {"made_new": [], "skipped": []}
    assert np.array_equal(get_weights(model)["classifier.weight"], head["classifier.weight"])


def test_save_then_load_is_bit_exact(tmp_path, classifier, tokenizer):
    odd = classifier.weights["classifier.bias"]
    odd[:] = [np.float32(1e-45), np.float32(-0.0)]  # a denormal, a negative zero
    save_classifier(tmp_path, classifier, tokenizer)
    loaded = load_classifier(tmp_path)
    assert_same(loaded.weights, classifier.weights)
    assert loaded.weights["classifier.bias"].tobytes() == odd.tobytes()
    assert_same({name: np.asarray(v) for name, v in classifier.quantization.items()}, loaded.quantization)
    for part in ("architecture", "labels", "task", "max_length"):
        assert getattr(loaded, part) == getattr(classifier, part)
    assert loaded.ranges == {"pooler.input": (-1.5, 2.25)}
    assert (tmp_path / "vocab.txt").read_bytes() == (tokenizer / "vocab.txt").read_bytes()


def test_the_same_classifier_gives_the_same_bytes(tmp_path, classifier, tokenizer):
    first, second = tmp_path / "first", tmp_path / "second"
    turned = classifier.with_weights(dict(reversed(classifier.weights.items())), classifier.quantization)
    for directory, each in ((first, classifier), (second, turned)):
        directory.mkdir()
        save_classifier(directory, each, tokenizer)
    for name in ("config.json", WEIGHTS_FILE, QUANTIZATION_FILE):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_transposed_weights_are_stored_in_their_order(tmp_path, classifier, tokenizer):
    """safetensors writes memory as it lies: a transposed view would come back as another matrix."""
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    view = np.asfortranarray(classifier.weights[name])
    save_classifier(tmp_path, classifier.with_weights(classifier.weights | {name: view}), tokenizer)
    assert np.array_equal(load_classifier(tmp_path).weights[name], classifier.weights[name])


def test_what_is_stored_is_in_the_layout_of_transformers(tmp_path, classifier, tokenizer):
    save_classifier(tmp_path, classifier.with_weights(classifier.weights), tokenizer)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {str(index): label for index, label in enumerate(classifier.labels)}
    assert config["label2id"] == {label: index for index, label in enumerate(classifier.labels)}
    assert config.items() >= ARCHITECTURE.to_dict().items()
    with safe_open(tmp_path / WEIGHTS_FILE, "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert not (tmp_path / QUANTIZATION_FILE).exists()
    assert load_classifier(tmp_path).quantization == {}


def spoil_truncated(directory):
    path = directory / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-100])


def spoil_header(directory):
    path = directory / WEIGHTS_FILE
    path.write_bytes(b"\xff" * 64)


def spoil_quantization(directory):
    (directory / QUANTIZATION_FILE).write_bytes(b"")


def spoil_json(directory):
    (directory / "config.json").write_text('{"vocab_size": ')


def spoil_type(directory):
    (directory / "config.json").write_text("[]")


def spoil_task(directory):
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"problem_type": None}))


def spoil_labels(directory):
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {"0": "a", "2": "b"}
    (directory / "config.json").write_text(json.dumps(config))


def spoil_key(directory):
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    del config["hidden_size"]
    (directory / "config.json").write_text(json.dumps(config))


def spoil_with(**changes):
    def spoil(directory):
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        (directory / "config.json").write_text(json.dumps(config | changes))

    return spoil


def spoil_dtype(directory):
    save_file({"bert.pooler.dense.bias": np.zeros(3, np.int64)}, directory / WEIGHTS_FILE)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_truncated,
        spoil_header,
        spoil_quantization,
        spoil_json,
        spoil_type,
        spoil_task,
        spoil_labels,
        spoil_key,
        spoil_dtype,
        spoil_with(problem_type="regression"),
        spoil_with(max_length="32"),
        spoil_with(num_hidden_layers=10**9),
        spoil_with(id2label={"0": 1, "1": 2}),
        lambda directory: (directory / "config.json").write_text("[" * 100_000),
        lambda directory: (directory / "config.json").unlink(),
        lambda directory: (directory / WEIGHTS_FILE).unlink(),
        shutil.rmtree,
    ],
    ids=(
        "truncated header quantization json type task labels key dtype other length layers numbers deep no_config "
        "no_weights nothing"
    ).split(),
)
def test_load_says_in_one_line_what_is_broken(tmp_path, classifier, tokenizer, spoil):
    directory = tmp_path / "stored"
    directory.mkdir()
    save_classifier(directory, classifier, tokenizer)
    load_classifier(directory)
    spoil(directory)
    with pytest.raises(InputError) as error:
        load_classifier(directory)
    message = str(error.value)
    assert message.startswith(f"{directory}: not a classifier written by tfpipe") and "\n" not in message


def test_a_run_stores_what_its_stages_trained(tiny_run, tiny_encoder):
    """The dense result keeps the encoder's shape and moved away from where it started."""
    _, run = tiny_run
    trained, started = load_file(run / "train" / WEIGHTS_FILE), load_file(tiny_encoder / "model.safetensors")
    assert trained.keys() == {f"bert.{name}" for name in started} | HEAD
    moved = [name for name, value in started.items() if not np.array_equal(value, trained[f"bert.{name}"])]
    assert sorted(moved) == sorted(started)
    assert all(np.isfinite(value).all() for value in trained.values())


def test_weights_are_stored_as_float32(tmp_path, classifier, tokenizer):
    wide = {name: value.astype(np.float64) for name, value in classifier.weights.items()}
    save_classifier(tmp_path, classifier.with_weights(wide), tokenizer)
    assert_same(load_classifier(tmp_path).weights, classifier.weights)


def test_a_lost_tensor_is_noticed(tmp_path, classifier, tokenizer):
    save_classifier(tmp_path, classifier, tokenizer)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    del weights["bert.pooler.dense.bias"]
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"bert\.pooler\.dense\.bias is missing"):
        set_weights(build_inference_model(ARCHITECTURE, 2), load_classifier(tmp_path).weights)
