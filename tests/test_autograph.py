"""No function of the package is rewritten by AutoGraph, which takes seconds of each run and changes no graph."""

import ast
from pathlib import Path

import tfpipe

PACKAGE = Path(tfpipe.__file__).parent


def rewritten(path):
    """The places where `tf.function` would rewrite what it traces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.function":
            keywords = calls[id(node)].keywords if id(node) in calls else ()
            if "autograph=False" not in [ast.unparse(keyword) for keyword in keywords]:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_every_traced_function_is_taken_as_it_is():
    paths = [path for path in PACKAGE.rglob("*.py") if "tf.function" in path.read_text(encoding="utf-8")]
    assert len(paths) > 8
    assert not [place for path in paths for place in rewritten(path)]
