"""Iterators of `tf.data` end at once: none of tfpipe's has a thread that tunes it."""

import ast
import re
from pathlib import Path

import tensorflow as tf

import tfpipe
from tfpipe.devices.untuned import untuned


def test_what_it_gives_is_the_same():
    dataset = untuned(tf.data.Dataset.range(5).map(lambda n: n + 1, num_parallel_calls=2))
    assert list(dataset.as_numpy_iterator()) == [1, 2, 3, 4, 5]
    assert dataset.options().autotune.enabled is False


def test_every_dataset_of_the_package_is_untuned():
    """A statement that makes a dataset, or the one that returns it, says so."""
    made = 0
    for path in Path(tfpipe.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "AUTOTUNE" not in source, path
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef):
                calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
                makers = [name for name in calls if re.fullmatch(r"tf\.data\.\w*Dataset(\.\w+)?", name)]
                makers += [name for name in calls if name == "builder.as_dataset" and "tensorflow" in path.stem]
                assert len(makers) <= calls.count("untuned"), f"{path}: {function.name}: {makers}"
                made += len(makers)
    assert made == 3  # batches, TFRecord files, TensorFlow Datasets
