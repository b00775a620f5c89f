"""What SECURITY.md promises of the code base: nothing that runs foreign code, no package without its hash."""

from __future__ import annotations

import ast
import json
import marshal
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from conftest import tiny_vocabulary, write_encoder

import tfpipe
from tfpipe.config.data import Data
from tfpipe.data.files import hubs
from tfpipe.data.files.sources import source_files
from tfpipe.encoders.source import open_source
from tfpipe.errors import InputError

PACKAGE = Path(tfpipe.__file__).parent
REPOSITORY = PACKAGE.parent

# Modules that read code, or run it; `importlib` is for the stages and for files of the package.
MODULES = {
    "pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "code", "codeop", "ctypes", "torch",
    "runpy", "tarfile", "zipfile",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "shutil.unpack_archive", "pandas.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "keras.config.enable_unsafe_deserialization",
    "tf.load_op_library", "tf.load_library", "tf.py_function", "options.register_custom_ops_library",
    "tf_keras.models.load_model", "tf.keras.models.load_model",
}  # fmt: skip
ARGUMENTS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "safe_mode": False, "autoescape": False}
IN_ONE_PLACE = {"tf.saved_model.load": "formats/saved_model/inspection.py"}
# Members of an archive are read as streams, and none is written to disk. Two functions of the C library are called with
# nothing that was read: `sigaltstack` and `malloc_trim`.
PLACES_OF_MODULES = {
    "zipfile": ("data/files/streams.py",),
    "ctypes": ("formats/openvino/signal_stack.py", "devices/memory.py"),
}
METHODS = {"extract", "extractall"}


def findings(path):
    """What a module must not hold, with its line."""
    where = path.relative_to(PACKAGE).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            modules = {name.partition(".")[0] for name in named}
            modules = {name for name in modules & MODULES if where not in PLACES_OF_MODULES.get(name, ())}
            yield from (f"{where}:{node.lineno}: {name}" for name in sorted(modules))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS or IN_ONE_PLACE.get(name, where) != where:
                yield f"{where}:{node.lineno}: {name}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ARGUMENTS and value is not (not ARGUMENTS[keyword.arg]):
                    yield f"{where}:{node.lineno}: {keyword.arg}"
            if name in ("np.load", "np.save", "np.savez") and "allow_pickle" not in {k.arg for k in node.keywords}:
                yield f"{where}:{node.lineno}: {name} without allow_pickle=False"


def test_nothing_runs_what_it_reads():
    assert [found for path in sorted(PACKAGE.rglob("*.py")) for found in findings(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from dill import loads", "eval(x)", "yaml.load(x)", "subprocess.run(x, shell=True)",
        "from_pretrained(x, trust_remote_code=flag)", "np.load(x)", "np.load(x, allow_pickle=True)",
        "tf.saved_model.load(x)", "import zipfile", "archive.extractall()",
    ],
)  # fmt: skip
def test_it_would_be_found(tmp_path, monkeypatch, line):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "module.py").write_text(line + "\n")
    assert len(list(findings(tmp_path / "module.py"))) == 1


def test_every_package_of_the_lock_has_its_version_and_hash():
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split() for line in lock.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 100
    for name, *rest in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", name), name
        assert any(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part) for part in rest), name


def refused(message, source):
    with pytest.raises(InputError, match=message) as error:
        open_source(source)
    assert "\n" not in str(error.value)


@pytest.fixture
def evil_module(tmp_path, monkeypatch):
    """A module that can be imported and leaves a marker when it is; returns the marker."""
    (tmp_path / "site").mkdir()
    marker = tmp_path / "marker"
    (tmp_path / "site" / "evil_module.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass BertConfig: pass\nBertTokenizer = BertBackbone = BertConfig\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield marker
    assert "evil_module" not in sys.modules


def test_no_code_of_a_transformers_repository_is_run(tmp_path, evil_module):
    names = {"AutoConfig": "evil_module.BertConfig", "AutoTokenizer": ["evil_module.BertTokenizer", None]}
    encoder = write_encoder(tmp_path / "encoder", auto_map=names, trust_remote_code=True)
    shutil.copy(tmp_path / "site" / "evil_module.py", encoder)
    settings = json.loads((encoder / "tokenizer_config.json").read_text())
    (encoder / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": names}))
    (encoder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch marker'\ntR.")
    assert open_source(str(encoder)).weights()
    assert not evil_module.exists()


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    import keras_nlp

    directory, vocabulary = tmp_path_factory.mktemp("preset") / "tiny", tiny_vocabulary()
    keras_nlp.models.BertBackbone(
        vocabulary_size=len(vocabulary), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8,
        max_sequence_length=16,
    ).save_to_preset(str(directory))  # fmt: skip
    keras_nlp.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(str(directory))
    return directory


def code(marker):
    function = compile(f"lambda x: open({str(marker)!r}, 'w')", "evil", "eval").co_consts[0]
    config = {"code": b64encode(marshal.dumps(function)).decode(), "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": config}


def foreign(name):
    return {"module": "evil_module", "class_name": name, "registered_name": None, "config": {}}


CHANGES = {
    "a class of a module": ("config.json", lambda old, marker: foreign("BertBackbone") | {"registered_name": "Evil"}),
    "a class in the settings": (
        "config.json",
        lambda old, marker: old | {"config": old["config"] | {"dtype": foreign("DTypePolicy")}},
    ),
    "a function": (
        "config.json",
        lambda old, marker: old | {"config": old["config"] | {"dropout": code(marker)}},
    ),
    "what is compiled": ("config.json", lambda old, marker: old | {"compile_config": {"loss": code(marker)}}),
    "a Lambda layer": (
        "tokenizer.json",
        lambda old, marker: {
            "module": "keras.layers", "class_name": "Lambda", "registered_name": "Lambda",
            "config": {"name": "x", "function": code(marker)},
        },
    ),
    "a tokenizer of a module": ("tokenizer.json", lambda old, marker: foreign("Tokenizer")),
    "a file for a vocabulary": (
        "tokenizer.json",
        lambda old, marker: old | {"config": old["config"] | {"vocabulary": "/etc/passwd"}},
    ),
    "shards elsewhere": ("model.weights.json", lambda old, marker: {"weight_map": {"/x": ["../../x.weights.h5"]}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_preset_names_no_class_but_bert(preset, tmp_path, evil_module, kind):
    copy = Path(shutil.copytree(preset, tmp_path / "copy"))
    name, change = CHANGES[kind]
    old = json.loads((copy / name).read_text()) if (copy / name).exists() else {}
    (copy / name).write_text(json.dumps(change(old, evil_module)))
    refused(rf"{name}: .*(only Bert\w+ is supported|not part of a preset|expected a)", f"keras-nlp:{copy}")
    assert not evil_module.exists()


def test_what_else_lies_in_a_preset_is_not_read(preset, tmp_path, evil_module):
    copy = Path(shutil.copytree(preset, tmp_path / "copy"))
    for name in ("task.json", "preprocessor.json"):
        (copy / name).write_text(json.dumps(foreign("BertBackbone")))
    assert open_source(f"keras-nlp:{copy}").weights()
    assert not evil_module.exists()


def test_no_code_of_a_dataset_is_run(tmp_path, evil_module):
    pytest.importorskip("datasets")
    directory = tmp_path / "reviews"
    directory.mkdir()
    shutil.copy(tmp_path / "site" / "evil_module.py", directory / "reviews.py")
    with pytest.raises(InputError, match="can't be loaded"):
        source_files(Data(source=f"hf:{directory}"))
    assert not evil_module.exists()


def test_a_dataset_names_files_of_its_own(tmp_path):
    """Its README says which files it has; the library would take any path."""
    pytest.importorskip("datasets")
    directory = tmp_path / "reviews"
    (directory / "data").mkdir(parents=True)
    for path in (tmp_path / "secret.csv", directory / "data" / "rows.csv"):
        path.write_text("text,label\ngood,1\n")

    def load(files):
        (directory / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n")
        return hubs.load_hugging_face(f"hf:{directory}#train")

    assert load("data/*.csv")["text"][0] == "good"
    for files in (tmp_path / "secret.csv", "../secret.csv", f"file://{tmp_path}/secret.csv"):
        with pytest.raises(InputError, match=r"a file of this machine that is not part of it|can't be loaded"):
            load(files)


@pytest.mark.parametrize("name", ["robotics:push", "evil:reviews/x", "imdb/split=train", "../imdb", "gs://x/imdb", ""])
def test_community_datasets_are_refused(name):
    with pytest.raises(InputError, match=r"expected tfds:NAME.*come with code of their own|can't be read|no such file"):
        source_files(Data(source=f"tfds:{name}"))


@pytest.mark.parametrize("first", ["import tfpipe.formats.onnx.format", "import tfpipe.tools.track.answers_onnx"])
def test_onnx_runtime_does_not_report_itself(tmp_path, first):
    """By itself it makes an identity in the home directory: findings/onnxruntime_reports_itself.sh."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", first], env=environment | {"HOME": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
