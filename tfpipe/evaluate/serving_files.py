"""Files beside the published artifacts: TF Serving's configuration, and a README with requests and answers.

Enters: the published versions, a measured latency curve, real rows. Leaves, in `<run>/serving/`: `models.config` (every
variant under a name of its own), `batching_parameters.txt`, `README.md`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfpipe import templates
from tfpipe.config.export import BASIS
from tfpipe.files import write_text
from tfpipe.formats.saved_model import warmup
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.provenance import machine
from tfpipe.tasks import task_of

SERVING_FILES = ("models.config", "batching_parameters.txt", "README.md")
GOOD_THROUGHPUT = 0.9  # of the best: beyond, a larger batch costs latency and gains little
QUEUE_MS = 1000.0  # longest queue worth waiting in; past it the server refuses at once


def write_serving_files(
    serving: Path,
    name: str,
    version: str,
    published: dict[tuple[str, str], Path],
    texts: dict[str, list[str]],
    curve: dict[int, float],
) -> None:
    """Writes the three files, each as a whole.

    Args:
      serving: directory that the server gets.
      name: of the run; the models are `<name>-<variant>`.
      version: release of TF Serving.
      published: (variant, format) -> newest version.
      texts: real texts to show, by the name of the input: `text`, and `text_pair` for pairs.
      curve: batch size -> milliseconds, by raw text.
    """
    served = {variant: path for (variant, format), path in published.items() if format == BASIS}
    write_text(serving / "models.config", models_config(name, list(served)))
    write_text(serving / "batching_parameters.txt", batching_parameters(curve, os.cpu_count() or 1))
    loaded = load_saved_model(served["dense"])
    by_text, by_tokens, by_name = (
        _recorded(loaded, signature, texts) for signature in ("serving_default", "tokens", "classify")
    )
    text = templates.render(
        Path(__file__).parent / "templates" / "serving_readme.md.jinja",
        name=name,
        version=version,
        variants=list(served),
        newest=served["dense"].name,
        others={path.relative_to(serving): format for (_, format), path in published.items() if format != BASIS},
        multi_label=not task_of(loaded.about()["task"].numpy().decode()).one_label,
        by_text=by_text,
        by_tokens=by_tokens,
        by_name=by_name,
        curve=curve,
    )
    write_text(serving / "README.md", text)


def models_config(name: str, variants: list[str]) -> str:
    """Writes TF Serving's `--model_config_file` (a ModelServerConfig as text), for the directory mounted at /models."""
    entries = "".join(
        f'  config {{\n    name: "{name}-{variant}"\n    base_path: "/models/{variant}"\n'
        f'    model_platform: "tensorflow"\n  }}\n'
        for variant in variants
    )
    return f"model_config_list {{\n{entries}}}\n"


def batching_parameters(curve: dict[int, float], processors: int) -> str:
    """Writes TF Serving's `--batching_parameters_file` (a BatchingParameters in text form).

    Args:
      curve: batch size -> milliseconds.
      processors: of the machine where it was measured.
    """
    best = max(size / latency for size, latency in curve.items())
    size = min(size for size, latency in curve.items() if size / latency >= GOOD_THROUGHPUT * best)
    size = max(size, warmup.BATCH)  # the server refuses a larger request, and a version whose warm-up it refused
    queue = max(1, int(QUEUE_MS // curve[size]))  # every curve has the batch of the warm-up
    measured = ", ".join(f"{each}: {latency:g}" for each, latency in curve.items())
    return f"""\
# Derived from the latency of the raw-text signature, in ms by batch size, measured on
# {machine()}: {measured}

# The smallest batch within {1 - GOOD_THROUGHPUT:.0%} of the best throughput, but as large as the warm-up's: this is
# also the largest request that the server takes.
max_batch_size {{ value: {size} }}
# A lone request never waits; batches form while all threads are busy.
batch_timeout_micros {{ value: 0 }}
# A queue of {QUEUE_MS:g} ms; a request past it is refused at once.
max_enqueued_batches {{ value: {queue} }}
# As many as the machine has processors: set it to the server's.
num_batch_threads {{ value: {processors} }}
# Padding would repeat a tensor's first element, which is no padding for a mask: only text, a vector, is batched.
pad_variable_length_inputs: false
"""


def _recorded(loaded, signature: str, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Records a request in the REST interface's form, and the answer."""
    inputs = {name: tf.constant(values) for name, values in texts.items()}
    if signature == "tokens":
        inputs = loaded.tokenize(**inputs)
    answers = loaded.signatures[signature](**inputs)
    request = {name: _plain(value) for name, value in sorted(inputs.items())}
    shown = [name for name in ("label", "probabilities", "logits", "classes", "scores") if name in answers]
    outputs = [f"{json.dumps(name)}: {_json(_plain(answers[name]))}" for name in shown]
    return {
        "inputs": request,
        "request": _json({"signature_name": signature, "inputs": request}),
        "answer": '{"outputs": {\n  ' + ",\n  ".join(outputs) + "\n}}",
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(tensor: tf.Tensor) -> list:
    return _decoded(tensor.numpy().tolist())


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value
