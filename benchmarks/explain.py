"""What explanations cost, how complete they are, and whether they point at the words that matter.

    .venv/bin/python benchmarks/explain.py runs/quickstart --variant pruned --rows 60

Sentences are the first of a seeded permutation of the run's test rows. For each baseline and method: processor time a
text, points of the quadrature, completeness errors, and the correlation of words' numbers with what the explained logit
loses when the word is left out of the text. The last is a test that no baseline is a part of. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import tfpipe  # before TensorFlow: the package sets what TensorFlow reads when it is imported
from tfpipe.evaluate.attributions import PathGradients, Question
from tfpipe.evaluate.explained import GRADIENT_X_INPUT, INTEGRATED_GRADIENTS
from tfpipe.model.classifier import load_classifier
from tfpipe.provenance import machine
from tfpipe.tokens.fast_tokenizer import FastTokenizer, TokenIds
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT

BASELINES = ("mask_token", "pad_token", "unk_token")
FEWEST_WORDS = 5  # of a text whose correlation is counted


def main() -> None:
    """Measures, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--variant", default="pruned")
    parser.add_argument("--rows", type=int, default=60)
    given = parser.parse_args()
    directory = given.run / STAGE_OF_VARIANT[given.variant]
    classifier, settings = load_classifier(directory), TokenizerSettings.read(directory)
    table = TokenTable.open(given.run / "prepare" / "test")
    rows = FastTokenizer(settings, classifier.max_length).encode(table.texts(table.sample(given.rows, 0)))
    model = PathGradients.of(classifier, settings.vocabulary.index(settings.mask_token))
    chosen = model.logits(rows).argmax(axis=1)
    weights = np.eye(len(classifier.labels), dtype=np.float32) - np.float32(1 / len(classifier.labels))
    questions = [Question(row, weights[label]) for row, label in enumerate(chosen)]
    words = [words_of(ids, settings.vocabulary) for ids in rows.ids]
    losses = [losses_of(model, rows.ids[asked.row], words[asked.row], asked.weights) for asked in questions]
    found: dict[str, Any] = {"tfpipe": tfpipe.__version__, "machine": machine(), "rows": given.rows}
    found["tokens_median"] = float(np.median([len(ids) for ids in rows.ids]))
    for name, method in [*((each, INTEGRATED_GRADIENTS) for each in BASELINES), ("mask_token", GRADIENT_X_INPUT)]:
        model = PathGradients.of(classifier, settings.vocabulary.index(getattr(settings, name)))
        model.attribute(rows, questions[:1], method)  # traced, and not timed
        started = time.process_time()
        answers = model.attribute(rows, questions, method)
        seconds = time.process_time() - started
        shares = [[each.tokens[group].sum() for group in groups] for each, groups in zip(answers, words, strict=True)]
        found[f"{method}, {name}"] = {
            "processor_ms_a_text": round(seconds / given.rows * 1e3),
            **of_answers(answers),
            "correlation_median": round(correlation(shares, losses), 2),
        }
    print(json.dumps(found, indent=2))


def words_of(ids: np.ndarray, vocabulary: tuple[str, ...]) -> list[list[int]]:
    """Gives the places of each word's pieces in a row."""
    groups: list[list[int]] = []
    for place in range(1, len(ids) - 1):
        if vocabulary[ids[place]].startswith("##") and groups:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def losses_of(model: PathGradients, ids: np.ndarray, groups: list[list[int]], weights: np.ndarray) -> np.ndarray:
    """Gives what the explained number loses without each word: [words] float."""
    without = [np.delete(ids, group) for group in groups]
    found = model.logits(TokenIds([ids, *without], [len(each) for each in (ids, *without)])) @ weights
    return found[0] - found[1:]


def of_answers(answers: list) -> dict[str, Any]:
    """Sums up steps, differences and completeness errors."""
    errors = np.array([each.error for each in answers])
    return {
        "steps": {
            str(steps): sum(each.steps == steps for each in answers) for steps in {each.steps for each in answers}
        },
        "smallest_difference": round(min(abs(each.difference) for each in answers), 4),
        "error_median": float(f"{np.median(errors):.2g}"),
        "error_max": float(f"{errors.max():.2g}"),
        "within_1_percent": round(float((errors < 0.01).mean()), 3),
    }


def correlation(shares: list[list[float]], losses: list[np.ndarray]) -> float:
    """Gives the median over texts of Pearson's correlation over words."""
    pairs = [(one, other) for one, other in zip(shares, losses, strict=True) if len(one) >= FEWEST_WORDS]
    return float(np.median([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


if __name__ == "__main__":
    main()
