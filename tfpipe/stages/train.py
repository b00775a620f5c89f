"""The stage `train`: the pretrained encoder becomes the dense classifier.

Enters: `prepare` and the encoder. Leaves: the classifier in the transformers layout, and `history.json`.
"""

from __future__ import annotations

from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.encoders import source as encoder_source
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import Classifier
from tfpipe.model.weights import import_encoder
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.optimizer import freeze
from tfpipe.train.session import Session


def run(config: Config, stage: StageDirectory) -> None:
    """Fine-tunes the dense model."""
    settings = config.train
    source = encoder_source.open_source(config.encoder.source, config.encoder.sha256)
    architecture = source.architecture
    session = Session(config, stage, settings, keep="best", vocab_size=architecture.vocab_size)
    say(f"  strategy: {session.chosen_strategy}; precision: {session.policy}")
    say(f"  batches: {session.batching}; {session.plan.steps_per_epoch} steps an epoch")
    say(f"  vocabulary: {session.active}")
    stage.notes |= {
        "strategy": str(session.chosen_strategy),
        "precision": str(session.policy),
        "batching": session.batching,
    }
    with session.scope(seeded=True):  # the head's first weights
        model = build_training_model(session.architecture(architecture), len(session.labels))
        stage.notes["encoder"] = import_encoder(model, session.taken(source.weights()), config.encoder.source)
        if settings.frozen_layers is not None:
            say(f"  {freeze(model, settings.frozen_layers, architecture.num_hidden_layers)}")
    fitted = session.fit(model)
    classifier = Classifier(
        architecture=architecture,
        labels=session.labels,
        task=session.task,
        max_length=session.max_length,
        weights=session.weights(model, fitted),
        quantization={},
    )
    session.save(classifier, fitted.history, fitted.logits)
