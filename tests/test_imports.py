"""The direction of imports, read from the source, and what the command line costs to start."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import tfpipe

PACKAGE = Path(tfpipe.__file__).parent

# Lowest first: a module imports from its own group, or from a lower layer. Groups of one layer do not know each other.
BASE = {
    "", "errors", "config", "config_compress", "config_data", "config_types", "config_file", "strict_yaml",
    "console", "files", "rundir", "fingerprint", "provenance", "paths", "escaping", "remote", "mirror",
    "stopping", "tpu_environment", "metrics", "published",
    "encoder_files", "encoder_source", "transformers_source", "keras_nlp_source",
}  # fmt: skip
LAYERS = (
    *({"base"}, {"data", "model"}, {"train"}, {"compress"}, {"export"}, {"evaluate"}),
    *({"stages"}, {"pipeline"}, {"tools"}, {"cli"}),
)


def modules():
    """Name below `tfpipe` -> path; `""` is the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(name, known):
    """The modules of the package that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{known[name]}: imports are absolute"
            # `from tfpipe import metrics` imports a module, `from tfpipe.metrics import x` a name of one
            named = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for dotted in named:
            package, _, rest = dotted.partition(".")
            if package == "tfpipe" and rest in known:
                found.add(rest)
    return found


def group_of(name):
    top = name.split(".")[0]
    return "base" if name in BASE else top


def layer_of(name):
    return next(number for number, layer in enumerate(LAYERS) if group_of(name) in layer)


def test_every_module_belongs_to_a_layer():
    known = modules()
    assert known.keys() >= {"pipeline", "cli", "data.prepare", "train.loop", "tools.doctor"}
    groups = set().union(*LAYERS)
    assert {name for name in known if group_of(name) not in groups} == set()


def test_imports_point_to_lower_layers():
    known = modules()
    wrong = [
        f"{name} imports {other}"
        for name in known
        for other in imported_by(name, known)
        if group_of(other) != group_of(name) and layer_of(other) >= layer_of(name)
    ]
    assert wrong == []


def test_only_the_pipeline_knows_several_stages():
    known = modules()
    stages = {
        "data.prepare", "train.train", "compress.distill", "compress.prune", "compress.quantize", "export.export",
        "evaluate.verify", "evaluate.report",
    }  # fmt: skip
    assert stages <= known.keys()
    for name in stages:
        for other in imported_by(name, known) & stages:
            taken = _names_taken(known[name], f"tfpipe.{other}")
            assert "run" not in taken and taken, f"{name} reaches for the stage {other}"


def _names_taken(path, module):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == module]
    return {alias.name for node in taken for alias in node.names}


def test_no_cycles():
    known = modules()
    edges = {name: imported_by(name, known) - {name} for name in known}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name not in done:
            path.append(name)
            for other in edges[name]:
                visit(other)
            done.add(path.pop())

    for name in known:
        visit(name)
    assert done == known.keys()


def test_the_command_line_starts_without_the_heavy_libraries():
    script = (
        "import sys; sys.argv = ['tfpipe', '--help']; import tfpipe.cli\n"
        "try: tfpipe.cli.main()\n"
        "except SystemExit as error: assert not error.code\n"
        "print([name for name in ('tensorflow', 'tf_keras', 'transformers', 'onnx', 'numpy', 'pydantic') "
        "if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.rstrip().endswith("[]") and "predict" in answer.stdout


def test_help_takes_less_than_half_a_second():
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tfpipe.cli", "--help"], capture_output=True, check=True, timeout=60)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5
