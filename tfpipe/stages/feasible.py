"""Checks before any work, by shapes alone: does a configuration ask of an encoder more than a training could give?

Enters: the configuration and the `config.json` of its encoders. Leaves: nothing, or an error that says what to change.
The module imports no TensorFlow and reads no weights.
"""

from __future__ import annotations

from pathlib import Path

from tfpipe.artifacts import Format, formats_named
from tfpipe.compress.limits import FEWEST_COLUMNS, FEWEST_HEADS, largest_share, layer_pairs, least_bytes
from tfpipe.config.compress import LATENCY_SHAPES, Student
from tfpipe.config.run import Config
from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError


def check_feasible(config: Config) -> None:
    """Checks the demands of pruning, distillation and the budget on the encoder.

    Raises:
      InputError: a student that can't be made or can't read the rows, layers that do not exist, a share or a size that
        can't be reached.
    """
    budget, distill = config.budget, config.distill
    student = distill and distill.student
    structured = config.prune is not None and config.prune.method == "structured"
    compares = distill is not None and distill.hidden_weight > 0.0
    limited = [each for each in formats_named(config.export.formats) if each.most_bytes is not None]
    if not (student or structured or compares or limited or budget.max_size_bytes or budget.max_latency_ms):
        return
    dense, tokenizer = encoder_source.shape_of(config.encoder.source)
    for format in limited:
        _check_file_size(format, dense)
    smaller = dense
    if student and student.layers is not None:
        if max(student.layers) >= dense.num_hidden_layers:
            raise InputError(
                f"distill.student.layers: {max(student.layers)}, but {config.encoder.source} has layers 0 to "
                f"{dense.num_hidden_layers - 1}"
            )
        smaller = dense.of_layers(student.layers)
    elif student:
        smaller = _checked_student(student, dense, tokenizer, config)
    if compares:
        layer_pairs(distill, smaller.num_hidden_layers, dense.num_hidden_layers)
        if smaller.hidden_size != dense.hidden_size:
            raise InputError(
                f"distill.hidden_weight: hidden states are {smaller.hidden_size} wide, the teacher's "
                f"{dense.hidden_size}, and can't be compared; set it to 0, the soft labels teach as well"
            )
    if structured and config.prune.sparsity > (most := largest_share(smaller)):
        raise InputError(
            f"prune.sparsity: {config.prune.sparsity:g}, but at most {most:.3f} of the encoder layers can be removed: "
            f"{FEWEST_HEADS} head and {FEWEST_COLUMNS} feed-forward columns stay in each; lower it, or choose a "
            "smaller encoder"
        )
    _, length = LATENCY_SHAPES[budget.latency_shape]
    if budget.max_latency_ms and length > smaller.max_position_embeddings:
        raise InputError(
            f"budget.latency_shape: {budget.latency_shape} has {length} tokens, the encoder "
            f"{smaller.max_position_embeddings} positions; choose a shorter one"
        )
    if budget.max_size_bytes:
        _check_size(smaller, config)


def check_runtimes(config: Config) -> None:
    """Checks that the runtimes of all formats that the run writes are installed.

    Raises:
      InputError: a runtime is missing.
    """
    for format in formats_named(config.export.formats):
        try:
            format.check_runtime()
        except InputError as error:
            raise InputError(f"export.formats: {error}, or leave {format.name} out") from None


def _check_file_size(format: Format, dense: Architecture) -> None:
    size = 4 * dense.size
    if size + format.overhead_bytes > format.most_bytes:
        raise InputError(
            f"export.formats: the weights of dense take {size:,} bytes, and a {format.name} file holds at most "
            f"{format.most_bytes:,}; leave {format.name} out, or choose a smaller encoder"
        )


def _checked_student(asked: Student, dense: Architecture, tokenizer: Path, config: Config) -> Architecture:
    """Reads the shape of another encoder, and checks that it can read the rows that are tokenized for the dense one."""
    source, where = asked.encoder, "distill.student.encoder"
    try:
        if asked.sha256 is None:
            student, own_tokenizer = encoder_source.shape_of(source)
        else:
            opened = encoder_source.open_source(source, asked.sha256, section="distill.student")
            student, own_tokenizer = opened.architecture, opened.tokenizer_directory
            next(iter(opened.read()), None)  # the hash is that of the file
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    encoder_source.check_reads(
        student, where, source, config.data.max_length, pairs=config.data.text_pair_column is not None
    )
    own, rows = (encoder_source.vocabulary_of(each) for each in (own_tokenizer, tokenizer))
    if own != rows:
        raise InputError(
            f"{where}: {source} has another vocabulary than {config.encoder.source} ({len(own):,} and {len(rows):,} "
            "word pieces), and can't read the same rows; choose an encoder of the same family, or "
            "distill.student.layers"
        )
    whole = config.prune is not None and config.prune.embeddings
    if whole and student.vocab_size != dense.vocab_size:
        raise InputError(
            f"{where}: {source} embeds {student.vocab_size:,} word pieces, {config.encoder.source} "
            f"{dense.vocab_size:,}; with prune.embeddings both must be the same"
        )
    return student


def _check_size(architecture: Architecture, config: Config) -> None:
    limit, shapes = config.budget.max_size_bytes, architecture.tensor_shapes()
    int8 = config.quantize is not None
    layers = {name: shape for name, shape in shapes.items() if name.startswith("encoder.")}
    kept = 1.0
    if config.prune is not None and config.prune.method == "structured":
        kept = 1.0 - config.prune.sparsity
    others = {name: shape for name, shape in shapes.items() if name not in layers}
    least = least_bytes(others, int8=int8) + int(kept * least_bytes(layers, int8=int8))
    if least > limit:
        ways = {
            "quantize: {}": not int8,
            "prune.method: structured": kept == 1.0,
            "a higher prune.sparsity": kept < 1.0,
            "a smaller encoder": True,
        }
        raise InputError(
            f"budget.max_size_bytes: {limit:,}, but the weights of {config.variants[-1]}, the smallest variant of this "
            f"run, take {least:,} bytes already; raise it, or use {' or '.join(way for way, on in ways.items() if on)}"
        )
