"""The stage `quantize`: weights on an 8-bit grid, and ranges within which activations are 8 bits wide.

Enters: `prepare` and the pruned classifier where there is one (its zeros stay zeros), else the distilled, else the
dense one. Leaves: the classifier in the transformers layout, a float file whose weights lie on their grid;
`quantization.safetensors` beside it; `history.json` and, where layers were ranked, `sensitivity.json`.

The quantized parts (Jacob et al., 2018): the kernels of all projections but the head's, per output channel, symmetric,
[-127, 127], or [-63, 63] with `quantize.reduce_range`; their inputs, per tensor, [0, 255], or [-128, 127] with
`quantize.scheme: symmetric`; their biases in steps of the products, 32 bits; the embedding tables per row, symmetric,
without training. Residuals, layer norms, softmax, the head and the layers that `quantize.float_layers` leaves out stay
float. With `mode: weight_only`, activations and biases stay float too.
"""

from __future__ import annotations

import tf_keras

from tfpipe.artifacts import format_named
from tfpipe.compress.calibration import (
    CalibrationRows,
    Probe,
    Ranges,
    damage_by_layer,
    min_max_ranges,
    observed,
    percentile_ranges,
)
from tfpipe.compress.fake_quantization import KeptZeros, learned_ranges, quantization_aware
from tfpipe.compress.grid import LARGEST_CODE, REDUCED_CODE, balanced, on_grid, quantized
from tfpipe.compress.limits import least_bytes
from tfpipe.compress.saturation import saturation
from tfpipe.compress.teacher import taught
from tfpipe.config.compress import Budget, Distill, Quantize
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.strategy import Choice, choose_precision, float32_kept, precision
from tfpipe.encoders.parameters import is_embedding, kernels_by_point
from tfpipe.files import write_json
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import Classifier, load_classifier
from tfpipe.model.elementwise import announce_compiler
from tfpipe.model.weights import set_weights
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.evaluation import Evaluation, shown_scores
from tfpipe.train.session import Session
from tfpipe.train.step import Hooks
from tfpipe.variants import made_of


def run(config: Config, stage: StageDirectory) -> None:
    """Calibrates, trains with fake quantization, puts the weights on their grid."""
    settings = config.quantize
    base = load_classifier(stage.inputs[made_of("quantize", stage.inputs)])
    idle = [f"quantize.{name}" for name in settings.without_effect]
    if settings.mode != "qat" and config.prune is None and config.distill not in (None, Distill()):
        idle += ["distill"] if config.distill.student is None else []  # nobody learns
    # Behind weights alone no codes are multiplied.
    reduced = settings.reduce_range and settings.mode != "weight_only"
    largest_code = REDUCED_CODE if reduced else LARGEST_CODE
    if idle:
        say(f"  no effect with quantize mode {settings.mode}, calibration {settings.calibration}: {', '.join(idle)}")
    float32 = Choice("float32", "fake quantization needs it")
    session = Session(config, stage, settings, keep="last", vocab_size=None, policy=float32)
    rows = CalibrationRows(session.training, session.plan, settings.calibration_rows)
    with precision("float32"), float32_kept():  # some hundred rows
        plain = _float_model(session, base)
        announce_compiler()
        ranges = _ranges(plain, rows, settings)
        if ranges:
            rows_used = min(settings.calibration_rows, session.training.num_rows)
            say(f"  {len(ranges)} activations calibrated on {rows_used} rows")
        kernels = kernels_by_point(base.weights)
        if settings.float_layers:
            damage = damage_by_layer(plain, rows, ranges, base.task, largest_code)
            kept = _kept_float(damage, base, settings, config.budget)
            write_json(stage.path / "sensitivity.json", {"divergence_by_layer": damage, "float_layers": kept})
            ranges = {name: bounds for name, bounds in ranges.items() if name not in kept}
            kernels = {point: names for point, names in kernels.items() if point not in kept}
    del plain  # or its weights would lie in memory beside those of the training

    history = []
    if settings.mode == "qat":
        with session.scope():
            model = build_training_model(session.architecture(base.architecture), len(base.labels))
            embeddings = {name: value for name, value in base.weights.items() if is_embedding(name)}
            set_weights(model, base.weights | {name: on_grid(value)[0] for name, value in embeddings.items()})
            base = base.with_weights({})  # the model has them
            symmetric = settings.scheme == "symmetric"
            model = quantization_aware(model, ranges, kernel_bits=7 if reduced else 8, symmetric=symmetric)
            masks = KeptZeros(model)
        with session.strategy.scope():
            policy = choose_precision(config.train.precision).value
            objective = taught(model, stage.inputs["train"], config, session.recipe.loss, policy)
        fitted = session.fit(model, Hooks(after_update=masks.update, objective=objective))
        logits = fitted.logits
        # The embeddings as they were: the model's are on a grid already, and theirs would differ by rounding.
        weights, history = session.weights(model, fitted) | embeddings, fitted.history
        ranges = learned_ranges(model)
        del model, masks, objective
    else:
        weights = base.weights
    names = sorted(name for each in kernels.values() for name in each)
    classifier = quantized(base, weights, ranges, names, largest_code)
    with precision("float32"), float32_kept():
        plain = _float_model(session, classifier)
        if settings.mode != "qat":
            probe = Probe(plain)
            probe.switch_on(classifier.ranges)
            evaluation = Evaluation(probe.model, session.validation, session.task, session.plan.batching)
            logits = evaluation.logits()
            result = evaluation.scores(logits)
            say(f"  validation: {shown_scores(result)}")
            history.append({"step": 0, "epoch": 0.0, **result})
        if classifier.ranges:
            first_rows = next(observed(plain, CalibrationRows(session.training, session.plan, 1)))
            entered = {name: value.numpy() for name, value in first_rows.items()}
            stage.notes["saturation"] = saturation(classifier, entered)
    scales = sum(name.endswith(".scale") for name in classifier.quantization)
    say(f"  {scales} weights on an 8-bit grid, {len(ranges)} activations with a range")
    session.save(classifier, history, logits)


def _float_model(session: Session, classifier: Classifier) -> tf_keras.Model:
    model = build_training_model(session.architecture(classifier.architecture), len(classifier.labels))
    set_weights(model, classifier.weights)
    return model


def _ranges(model, rows: CalibrationRows, settings: Quantize) -> Ranges:
    if settings.mode == "weight_only":
        return {}
    if settings.calibration == "percentile":
        ranges = percentile_ranges(model, rows, settings.percentile)
    else:
        ranges = min_max_ranges(model, rows)
    if settings.scheme == "symmetric":
        return {name: balanced(*bounds) for name, bounds in ranges.items()}
    return ranges


def _kept_float(damage: dict[str, float], base: Classifier, settings: Quantize, budget: Budget) -> list[str]:
    """Chooses the most sensitive layers, to stay float: as many as are asked for and fit into the budget, never all.

    Embeddings are ranked for the reader, but stay 8 bits wide: they are half of a small model.
    """
    kernels = kernels_by_point(base.weights)
    for layer, value in list(damage.items())[:5]:
        say(f"  8 bits in {layer} alone: divergence {value:.2e}")
    if settings.float_layers >= len(kernels):
        say(f"  quantize.float_layers {settings.float_layers}: there are {len(kernels)}, of which one is quantized")
    kept: list[str] = []
    overhead = format_named(budget.artifact).overhead_bytes
    for layer in (layer for layer in damage if layer in kernels):
        if len(kept) == min(settings.float_layers, len(kernels) - 1):
            break
        in_float = [name for each in (*kept, layer) for name in kernels[each]]
        shapes = {name: value.shape for name, value in base.weights.items()}
        size = least_bytes(shapes, int8=True, float_kernels=in_float) + overhead
        if budget.max_size_bytes is not None and size > budget.max_size_bytes:
            say(
                f"  {layer} is not left in float: about {size:,} bytes, budget.max_size_bytes {budget.max_size_bytes:,}"
            )
            continue
        kept.append(layer)
    say(f"  float: {', '.join(kept) or 'no layer'}")
    return kept
