"""The stage `train`: the pretrained encoder becomes the dense classifier.

Enters: `prepare` and the encoder. Leaves: the classifier in the transformers layout, and `history.json`.
"""

from __future__ import annotations

import json

import tf_keras

from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.strategy import choose_precision, choose_strategy, precision
from tfpipe.encoders import source as encoder_source
from tfpipe.files import write_json
from tfpipe.model.bert import build_training_form
from tfpipe.model.classifier import Classifier, save_classifier
from tfpipe.model.weights import get_weights, import_encoder
from tfpipe.rundir.directory import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.train.loop import fit
from tfpipe.train.optimizer import freeze
from tfpipe.train.recipe import recipe_of, training_plan
from tfpipe.train.vocabulary import ActiveVocabulary


def run(config: Config, stage: StageDirectory) -> None:
    """Fine-tunes the dense model."""
    settings = config.train
    prepared = stage.inputs["prepare"]
    labels = json.loads((prepared / "labels.json").read_text(encoding="utf-8"))["names"]
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    source = encoder_source.open_source(config.encoder.source, config.encoder.sha256)
    architecture = source.architecture

    strategy, chosen_strategy = choose_strategy(settings.strategy, settings.worker_timeout)
    policy = choose_precision(settings.precision)
    plan, batching = training_plan(config, training, validation)
    active = ActiveVocabulary([training, validation], architecture.vocab_size, whole=settings.optimizer == "lamb")
    say(f"  strategy: {chosen_strategy}; precision: {policy}")
    say(f"  batches: {batching}; {plan.steps_per_epoch} steps an epoch")
    say(f"  vocabulary: {active}")
    stage.choices |= {"strategy": str(chosen_strategy), "precision": str(policy), "batching": batching}

    with precision(policy.value), strategy.scope():
        tf_keras.utils.set_random_seed(config.seed)  # the head's first weights
        model = build_training_form(active.architecture(architecture.with_dropout(settings.dropout)), len(labels))
        pretrained = source.weights()
        stage.choices["encoder"] = import_encoder(model, active.taken(pretrained), config.encoder.source)
        if settings.frozen_layers is not None:
            say(f"  {freeze(model, settings.frozen_layers, architecture.num_hidden_layers)}")
    recipe = recipe_of(
        config,
        "train",
        settings,
        keep="best",
        precision=policy.value,
        labels=labels,
        training=training,
    )
    fitted = fit(
        model,
        stage=stage,
        training=active.renumbered(training),
        validation=active.renumbered(validation),
        plan=plan,
        recipe=recipe,
        strategy=strategy,
    )
    classifier = Classifier(
        architecture=architecture,
        labels=tuple(labels),
        task=config.task,
        max_length=config.data.max_length,
        weights=active.put_back(get_weights(model), pretrained, fitted.embedding_decay),
        quantization={},
    )
    save_classifier(stage.path, classifier, prepared / "tokenizer")
    write_json(stage.path / "history.json", fitted.history)
