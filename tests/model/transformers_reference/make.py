"""Records what transformers' BERT on PyTorch answers for the tests' tiny encoder.

    pip install -r requirements.txt
    python make.py            # writes record.json and record.safetensors
    python make.py --check    # computes all again, and fails where that differs from the record

Hidden states after each layer and logits for every activation, in eager attention and float32, dropout off. Losses and
their gradients: of one label a row by every weight, else by the weights next to what is tested.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/

from model.transformers_reference.record import (
    ACTIVATIONS,
    CONFIG,
    HERE,
    INPUTS,
    NUM_LABELS,
    digest,
    recorded,
    weights,
)

ROWS, LENGTH = 6, 12
TOLERANCE = 1e-5  # absolute and relative: processors sum in other orders


def inputs() -> dict[str, np.ndarray]:
    """Token ids, mask and token types; the first row has padding, the second has none."""
    random = np.random.default_rng(2)
    lengths = random.integers(4, LENGTH, ROWS)
    lengths[:2] = LENGTH - 5, LENGTH
    columns = np.arange(LENGTH)
    mask = (columns < lengths[:, None]).astype(np.int32)
    ids = random.integers(1, CONFIG["vocab_size"], (ROWS, LENGTH)).astype(np.int32) * mask
    types = ((columns >= lengths[:, None] // 2) * mask).astype(np.int32)
    return dict(zip(INPUTS, (ids, mask, types), strict=True))


def targets() -> dict[str, np.ndarray]:
    """Task -> `[rows, labels] float32`: each label, or none, one, two and all of them."""
    one = np.eye(NUM_LABELS, dtype=np.float32)[np.arange(ROWS) % NUM_LABELS]
    several = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 1, 1]], np.float32)
    return {"single_label": one, "multi_label": several}


def model_of(activation: str, task: str) -> transformers.BertForSequenceClassification:
    """Makes the classifier; loading fails if it has other names or shapes of tensors."""
    config = transformers.BertConfig(
        **CONFIG | {"hidden_act": activation},
        num_labels=NUM_LABELS,
        problem_type=f"{task}_classification",
        attn_implementation="eager",
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights().items()}, strict=True)
    return model


def answers() -> dict[str, np.ndarray]:
    """Name -> array of all that is recorded."""
    given = inputs()
    batch = {name: torch.from_numpy(value).long() for name, value in given.items()}
    found = given | {f"{task}.targets": value for task, value in targets().items()}
    for activation in ACTIVATIONS:
        model = model_of(activation, "single_label")
        with torch.no_grad():
            answer = model(**batch, output_hidden_states=True)
        found[f"{activation}.logits"] = answer.logits.numpy()
        for layer, states in enumerate(answer.hidden_states[1:]):
            found[f"{activation}.hidden.{layer}"] = states.numpy()
    near = "bert.encoder.layer.0.intermediate."
    for activation, task, prefix in (
        ("gelu", "single_label", ""),
        ("gelu_new", "single_label", near),
        ("relu", "single_label", near),
        ("gelu", "multi_label", ("classifier.", "bert.pooler.")),
    ):
        model, wanted = model_of(activation, task), torch.from_numpy(targets()[task])
        loss = model(**batch, labels=wanted.argmax(1) if task == "single_label" else wanted).loss
        loss.backward()
        found[f"{activation}.{task}.loss"] = loss.detach().numpy()
        for name, parameter in model.named_parameters():
            if name.startswith(prefix):
                found[f"{activation}.{task}.gradient.{name}"] = parameter.grad.numpy()
    return {name: np.asarray(value, order="C") for name, value in found.items()}


def facts() -> dict:
    """Versions, the digest of the weights, and the names and shapes of transformers' tensors."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "weights_sha256": digest(weights()),
        "shapes": {name: list(value.shape) for name, value in model_of("gelu", "single_label").state_dict().items()},
    }


def check() -> None:
    """Compares a fresh computation with the record.

    Raises:
      SystemExit: they differ.
    """
    record, fresh = recorded(), answers()
    if facts()["shapes"] != record.facts["shapes"] or fresh.keys() != record.arrays.keys():
        raise SystemExit("the record has other names or shapes")
    worst = 0.0
    for name, value in fresh.items():
        difference = float(np.abs(value.astype(np.float64) - record.arrays[name]).max())
        if not np.allclose(value, record.arrays[name], TOLERANCE, TOLERANCE):
            raise SystemExit(f"{name} differs from the record by {difference}")
        worst = max(worst, difference)
    print(f"{len(fresh)} arrays are as recorded; the largest difference is {worst:.1e}")


def main() -> None:
    """Reads the command line."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--check"]:
        check()
        return
    (HERE / "record.safetensors").write_bytes(save(answers()))
    (HERE / "record.json").write_text(json.dumps(facts()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
