"""The stage `train`: the pretrained encoder becomes the dense classifier.

Enters: `prepare` and the encoder. Leaves: the classifier in the transformers layout, and `history.json`.
"""

from __future__ import annotations

import json

import tf_keras

from tfpipe import encoder_source
from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.data.token_table import TokenTable
from tfpipe.model.bert import Architecture, build_training_form
from tfpipe.model.weights import Classifier, get_weights, import_encoder, save_classifier
from tfpipe.rundir import StageDirectory, write_json
from tfpipe.train.devices import check_batch_size, choose_precision, choose_strategy, precision
from tfpipe.train.loop import fit, recipe_of


def run(config: Config, stage: StageDirectory) -> None:
    """Fine-tunes the dense model."""
    settings = config.train
    prepared = stage.inputs["prepare"]
    labels = json.loads((prepared / "labels.json").read_text(encoding="utf-8"))["names"]
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    source = encoder_source.open_source(config.encoder.source, config.encoder.sha256)
    architecture = Architecture.from_dict(source.architecture)

    strategy, chosen_strategy = choose_strategy(settings.strategy)
    policy = choose_precision(settings.precision)
    check_batch_size(settings.batch_size, strategy)
    say(f"  strategy: {chosen_strategy}; precision: {policy}")
    stage.choices |= {"strategy": str(chosen_strategy), "precision": str(policy)}

    with precision(policy.value), strategy.scope():
        tf_keras.utils.set_random_seed(config.seed)  # the head's first weights
        model = build_training_form(architecture.with_dropout(settings.dropout), len(labels))
        stage.choices["encoder"] = import_encoder(model, source.weights(), config.encoder.source)
    recipe = recipe_of(config, "train", epochs=settings.epochs, learning_rate=settings.learning_rate, keep="best")
    history = fit(model, stage=stage, training=training, validation=validation, recipe=recipe, strategy=strategy)
    classifier = Classifier(
        architecture=architecture,
        labels=tuple(labels),
        task=config.task,
        max_length=config.data.max_length,
        weights=get_weights(model),
        quantization={},
    )
    save_classifier(stage.path, classifier, prepared / "tokenizer")
    write_json(stage.path / "history.json", history)
