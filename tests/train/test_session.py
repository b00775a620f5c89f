"""What a training leaves behind in its process."""

import gc

from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import gradient_registry

from tfpipe import pipeline


def graphs():
    gc.collect()
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


def test_a_training_leaves_no_graph_in_the_process(copied_run):
    """A sweep trains many models in one process, and TensorFlow keeps what holds a custom gradient."""
    config, run = copied_run
    pipeline.run(config, run, until="train", redo="train")
    registered, before = set(gradient_registry._registry), graphs()
    pipeline.run(config, run, until="train", redo="train")
    assert set(gradient_registry._registry) == registered
    assert graphs() <= before + 2  # those of the dataset's scan, which TensorFlow keeps as well
