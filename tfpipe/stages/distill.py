"""The stage `distill`: the dense model teaches a smaller one from the start.

Enters: `prepare`, the dense classifier, and, where the student is not made of the dense model's layers, a pretrained
encoder. Leaves: the student in the transformers layout, and `history.json`.
"""

from __future__ import annotations

import numpy as np
import tf_keras

from tfpipe.compress.teacher import taught
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.strategy import choose_precision, choose_strategy, precision
from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import layer_of, layer_prefix
from tfpipe.files import write_json
from tfpipe.model.bert import build_training_form
from tfpipe.model.classifier import Classifier, load_classifier, save_classifier
from tfpipe.model.weights import get_weights, import_encoder, set_weights
from tfpipe.rundir.directory import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.train.loop import fit
from tfpipe.train.recipe import recipe_of, training_plan
from tfpipe.train.step import Hooks
from tfpipe.train.vocabulary import ActiveVocabulary


def run(config: Config, stage: StageDirectory) -> None:
    """Trains the student; `feasible.check_feasible` has found that it can be made."""
    settings, prepared = config.distill.student, stage.inputs["prepare"]
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    dense = load_classifier(stage.inputs["train"])
    strategy, _ = choose_strategy(config.train.strategy, config.train.worker_timeout)
    policy = choose_precision(config.train.precision)
    stage.choices["precision"] = str(policy)
    recipe = recipe_of(
        config, "distill", settings, keep="best", precision=policy.value, labels=dense.labels, training=training
    )
    plan, _ = training_plan(config, training, validation)
    if settings.layers is not None:
        student, pretrained = made_of_layers(dense, settings.layers)
    else:
        source = encoder_source.open_source(settings.encoder, settings.sha256, section="distill.student")
        student, pretrained = source.architecture, source.weights()
    active = ActiveVocabulary([training, validation], student.vocab_size, whole=config.train.optimizer == "lamb")
    with precision(policy.value), strategy.scope():
        tf_keras.utils.set_random_seed(config.seed)  # the first weights of a new head
        architecture = active.architecture(student.with_dropout(config.train.dropout))
        model = build_training_form(architecture, len(dense.labels))
        if settings.layers is not None:
            set_weights(model, active.taken(pretrained))
        else:
            import_encoder(model, active.taken(pretrained), settings.encoder)
        objective = taught(model, dense, config, recipe.loss, policy.value, active)
    counts = [sum(value.size for value in each.values()) for each in (dense.weights, pretrained)]
    say(
        f"  a student of {student.num_hidden_layers} layers, {counts[1] / 1e6:.1f} million parameters; its teacher has "
        f"{dense.architecture.num_hidden_layers} and {counts[0] / 1e6:.1f}"
    )
    fitted = fit(
        model,
        stage=stage,
        training=active.renumbered(training),
        validation=active.renumbered(validation),
        plan=plan,
        recipe=recipe,
        strategy=strategy,
        hooks=Hooks(objective=objective),
    )
    weights = active.put_back(get_weights(model), pretrained, fitted.embedding_decay)
    save_classifier(stage.path, dense.with_weights(weights, architecture=student), prepared / "tokenizer")
    write_json(stage.path / "history.json", fitted.history)


def made_of_layers(dense: Classifier, layers: tuple[int, ...]) -> tuple[Architecture, dict[str, np.ndarray]]:
    """A smaller model of some of the dense one's layers, with its embeddings, pooler and head (Sanh et al., 2019).

    Args:
      dense: the teacher.
      layers: which, from 0; they exist.
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
