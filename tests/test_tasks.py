"""The formulas of each task: NumPy's and TensorFlow's are the same, and no other module knows which task it is."""

import ast

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from test_imports import modules

from tfpipe.config.file import parse_config
from tfpipe.config.run import Config
from tfpipe.tasks import TASKS, joined_labels, split_labels, task_of


def test_no_other_module_names_a_task():
    """What differs between tasks stands in one module: a comparison elsewhere needs the name as a constant."""
    names = {*TASKS, *(name.encode() for name in TASKS)}
    found = [
        f"{name} line {node.lineno}"
        for name, path in modules().items()
        if name != "tasks"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and type(node.value) in (str, bytes) and node.value in names
    ]
    assert found == []


def test_the_setting_takes_every_task_and_its_default_is_the_first():
    for name in TASKS:
        tree = {"name": "x", "task": name, "data": {"source": "rows.csv"}, "encoder": {"source": "e"}}
        assert parse_config(tree, where="test").task == name
    assert Config.model_fields["task"].default == "single_label"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_tensorflow_computes_what_numpy_does(task, smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (50, 4)).astype(np.float32)
    targets = task_of(task).decisions(random.normal(0, 2, (50, 4))).astype(np.float32)
    probability = task_of(task).probabilities(logits)
    assert task_of(task).graph_probabilities(logits).numpy() == pytest.approx(probability, abs=1e-6)
    smoothed = task_of(task).smoothed(tf.constant(targets), smoothing).numpy()
    half = 4 if task == "single_label" else 2
    assert smoothed == pytest.approx(targets * (1 - smoothing) + smoothing / half, abs=1e-6)
    expected = task_of(task).cross_entropy(smoothed, probability)
    assert task_of(task).loss(tf.constant(smoothed), tf.constant(logits)).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_divergence(task):
    random = np.random.default_rng(0)
    p, q = (task_of(task).probabilities(random.normal(size=(50, 3))) for _ in range(2))
    assert task_of(task).divergence(p, p) == pytest.approx(0.0, abs=1e-12)
    expected = scipy.stats.entropy(q, p, axis=1).mean()
    if task == "multi_label":
        both = [np.stack([each, 1 - each], axis=-1) for each in (q, p)]
        expected = scipy.stats.entropy(*both, axis=-1).sum(axis=1).mean()
    assert task_of(task).divergence(p, q) == pytest.approx(expected)
    certain = np.array([[1.0, 0.0, 0.0]])
    assert np.isfinite(task_of(task).divergence(certain, certain[:, ::-1]))


def test_a_row_has_one_prediction_even_where_logits_are_equal():
    assert task_of("single_label").decisions(np.zeros((2, 3))).tolist() == [[True, False, False]] * 2


NAMES = st.lists(st.one_of(st.text("ab|\\\\", min_size=1, max_size=5), st.text(min_size=1, max_size=5)), max_size=6)


@given(NAMES)
def test_joined_labels_are_read_back(names):
    joined = joined_labels(names)
    assert split_labels(joined) == names
    if not any(character in name for name in names for character in "|\\"):
        assert joined == "|".join(names)


@given(st.text("ab|\\"))
def test_any_text_can_be_read_as_labels(text):
    assert all(isinstance(name, str) for name in split_labels(text))
