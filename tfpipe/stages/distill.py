"""The stage `distill`: the dense model teaches a smaller one from the start.

Enters: `prepare`, the dense classifier, and, where the student is not made of the dense model's layers, a pretrained
encoder. Leaves: the student in the transformers layout, and `history.json`.
"""

from __future__ import annotations

import numpy as np

from tfpipe.compress.teacher import taught
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import layer_of, layer_prefix
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import Classifier, load_classifier
from tfpipe.model.weights import import_encoder, set_weights
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.session import Session
from tfpipe.train.step import Hooks


def run(config: Config, stage: StageDirectory) -> None:
    """Trains the student; `feasible.check_feasible` has found that it can be made."""
    settings = config.distill.student
    dense = load_classifier(stage.inputs["train"])
    if settings.layers is not None:
        student, pretrained = made_of_layers(dense, settings.layers)
    else:
        source = encoder_source.open_source(settings.encoder, settings.sha256, section="distill.student")
        student, pretrained = source.architecture, source.weights()
    session = Session(config, stage, settings, keep="best", vocab_size=student.vocab_size)
    stage.notes["precision"] = str(session.policy)
    with session.scope(seeded=True):  # the first weights of a new head
        model = build_training_model(session.architecture(student), len(dense.labels))
        if settings.layers is not None:
            set_weights(model, session.taken(pretrained))
        else:
            import_encoder(model, session.taken(pretrained), settings.encoder)
        objective = taught(
            model, stage.inputs["train"], config, session.recipe.loss, session.policy.value, session.active
        )
    counts = [sum(value.size for value in each.values()) for each in (dense.weights, pretrained)]
    say(
        f"  a student of {student.num_hidden_layers} layers, {counts[1] / 1e6:.1f} million parameters; its teacher has "
        f"{dense.architecture.num_hidden_layers} and {counts[0] / 1e6:.1f}"
    )
    dense, pretrained = dense.with_weights({}), {}  # the models have them
    fitted = session.fit(model, Hooks(objective=objective))
    session.save(
        dense.with_weights(session.weights(model, fitted), architecture=student), fitted.history, fitted.logits
    )


def made_of_layers(dense: Classifier, layers: tuple[int, ...]) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Makes a smaller model of some of the dense one's layers, with its embeddings, pooler, head (Sanh et al., 2019).

    Args:
      dense: the teacher.
      layers: numbers of the layers, from 0; they exist.
    """
    number = {layer: index for index, layer in enumerate(layers)}
    weights = {}
    for name, value in dense.weights.items():
        layer = layer_of(name)
        if layer is None:
            weights[name] = value
        elif layer in number:
            weights[name.replace(layer_prefix(layer), layer_prefix(number[layer]), 1)] = value
    return dense.architecture.of_layers(layers), weights
