"""The direction of imports, read from the source, and what the command line costs to start."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tfpipe
from tfpipe import artifacts
from tfpipe.stages import SUMMARIES, table

PACKAGE = Path(tfpipe.__file__).parent

# Lowest first: a module imports from its own folder or a lower layer. Folders of a layer do not import each other.
LAYERS = (
    {"errors", "escaping", "tasks", "variants", "tpu_environment"},
    {"", "artifacts"},
    {"files", "console", "metrics", "provenance", "templates", "ending"},
    {"config"},
    {"rundir", "encoders", "devices"},
    {"tokens", "model"},
    {"data", "train", "formats"},
    {"compress", "evaluate"},
    {"stages"},
    {"pipeline"},
    {"tools", "cli_options"},
    {"cli_tools"},
    {"cli"},
)
WITHOUT_TENSORFLOW = (
    "artifacts", "tasks", "stages.table", "stages.feasible", "encoders", "config", "rundir", "formats.base",
    "formats.onnx.format", "formats.onnx.text", "formats.openvino.format", "formats.litert.format",
    "formats.litert.flatbuffer", "tokens.fast_tokenizer", "tokens.words", "tools.predict.answers",
    "tools.predict.by_tokens", "evaluate.explained", "evaluate.explained_html", "evaluate.page",
    "evaluate.artifact_table", "tools.explain", "tools.report",
)  # fmt: skip
"""modules and folders that must be imported without it: the command line tells what holds, and answers, by these"""


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
    return name.split(".")[0]


def layer_of(name):
    return next(number for number, layer in enumerate(LAYERS) if group_of(name) in layer)


def test_every_module_belongs_to_a_layer():
    known = modules()
    assert known.keys() >= {"pipeline", "cli", "stages.prepare", "train.loop", "tools.doctor"}
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


def test_a_stage_imports_no_stage():
    known = modules()
    assert list(SUMMARIES) == [stage.name for stage in table.STAGES]
    stages = {f"stages.{stage.name}" for stage in table.STAGES}
    assert stages <= known.keys()
    assert [name for name in (*stages, "stages.table") if imported_by(name, known) & stages] == []


def test_a_format_imports_no_format():
    known = modules()
    formats = {each.name: each.module.removeprefix("tfpipe.") for each in (artifacts.REFERENCE, *artifacts.FORMATS)}
    assert set(formats.values()) <= known.keys()
    shared = {each for each in known if each.startswith("formats.onnx_graph")} | {"formats.base", "formats.folder"}
    package = {name: ".".join(module.split(".")[:2]) for name, module in formats.items()}
    own = {name: {each for each in known if f"{each}.".startswith(f"{package[name]}.")} for name in formats}
    wrong = [
        (module, other)
        for name in formats
        for module in own[name]
        for other in imported_by(module, known)
        if other.startswith("formats.") and other not in own[name] | shared
    ]
    assert wrong == []


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_it_is_imported_without_tensorflow(name):
    named = [f"tfpipe.{each}" if each else "tfpipe" for each in modules() if (each + ".").startswith(name + ".")]
    script = f"import sys, {', '.join(named)}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("format", ["onnx", "onnx_text", "openvino", "litert"])
def test_an_artifact_is_loaded_and_asked_without_tensorflow(every_format_run, format):
    path = every_format_run[1] / "export" / "int8" / artifacts.format_named(format).path
    script = (
        "import sys, pathlib, numpy as np\n"
        "from tfpipe.artifacts import format_named\n"
        "from tfpipe.formats.base import Requests\n"
        f"format = format_named({format!r})\n"
        f"(answer,) = format.code.load(pathlib.Path({str(path)!r}), 1)\n"
        "names = ('input_ids', 'attention_mask', 'token_type_ids')\n"
        "print(answer.ask(Requests({name: np.ones((1, 4), np.int32) for name in names}, ['a film'], None)).shape)\n"
        "print(sorted({'tensorflow', 'pydantic', 'pyarrow', 'transformers', 'sklearn'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.splitlines() == ["(1, 2)", "[]"]


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


def test_tests_import_no_tests_of_another_folder():
    """pytest finds a test module by its name alone in folders that it collects: the folder by itself would fail."""
    folder = Path(__file__).parent
    homes = {path.stem: path.parent for path in folder.rglob("test_*.py")}
    for path in folder.rglob("*.py"):
        for name in re.findall(r"^(?:from|import) (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert homes.get(name, path.parent) == path.parent, f"{path} imports {name}"
