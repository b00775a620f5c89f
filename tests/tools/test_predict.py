import bz2
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import tensorflow as tf
from conftest import TINY, WORDS, predict, tiny_vocabulary, tiny_weights

from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.model.classifier import Classifier, float_model
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.published import find_saved_model
from tfpipe.tasks import joined_labels, split_labels
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict import command, lines
from tfpipe.tools.predict.options import Options


def run(model, texts, input, output):
    options = Options(input=() if input is None else (str(input),), output=output)
    command.run(str(model), texts, options)


TEXTS = ["this film is very good and lovely", "this film is very bad and awful", "", "ünknown Wörds 汉字"]


@pytest.fixture(scope="module")
def served(tiny_run):
    return tiny_run[1] / "serving" / "dense" / "1"


def test_a_run_gives_its_newest_published_version(tiny_run, tmp_path):
    _, directory = tiny_run
    assert find_saved_model(directory, "int8") == directory / "serving" / "int8" / "1"
    published = tmp_path / "serving" / "dense"
    for name in ("2", "9", "10", ".11.partial", "old"):
        (published / name).mkdir(parents=True)
    assert find_saved_model(tmp_path, "dense") == published / "10"


def test_only_numbers_are_versions(tmp_path):
    for name in ("2", "²", "٣", "03"):
        (tmp_path / "serving" / "dense" / name).mkdir(parents=True)
    assert find_saved_model(tmp_path, "dense").name == "2"


def test_a_damaged_record_of_what_was_published_is_said(copied_run):
    _, run = copied_run
    for content in ("[" * 100_000, '{"files_written": {}}', '{"files_written": {}, "published": [1]}'):
        (run.path / "publish" / "stage.json").write_text(content)
        with pytest.raises(InputError, match=r"publish/stage\.json: damaged, .* --redo publish"):
            find_saved_model(run.path, "int8")
    version = run.path / "serving" / "int8" / "1"
    assert find_saved_model(version, "int8") == version


def test_what_the_last_run_did_not_publish_is_refused(copied_run):
    """Its newest version is of an earlier run."""
    _, run = copied_run
    record = json.loads((run.path / "publish" / "stage.json").read_text())
    del record["published"]["serving/pruned/1"]
    (run.path / "publish" / "stage.json").write_text(json.dumps(sealed(record)))
    assert find_saved_model(run.path, "int8").name == "1"
    with pytest.raises(InputError, match=r"did not publish pruned, what is in serving/pruned/ is older"):
        find_saved_model(run.path, "pruned")
    assert find_saved_model(run.path / "serving" / "pruned" / "1", "pruned").name == "1"


def test_a_saved_model_is_taken_as_it_is(served):
    assert find_saved_model(served, "int8") == served


def test_what_is_no_model_is_refused_with_what_to_do(tiny_run, tmp_path):
    _, directory = tiny_run
    with pytest.raises(InputError, match=r"no published variant tiny; published are dense, int8, pruned"):
        find_saved_model(directory, "tiny")
    for absent in (tmp_path / "absent", Path("x" * 5000)):
        with pytest.raises(InputError, match=r"(absent|xxx): no such directory; give that of a run or of an artifact"):
            find_saved_model(absent, "dense")
    for near in ("serving/int8", "export/int8", "export/int8/onnx/onnx/model_quantized.onnx"):
        with pytest.raises(InputError, match=r"neither a run nor a SavedModel.*; did you mean .*int8/(1|onnx)"):
            find_saved_model(directory / near, "dense")
    with pytest.raises(InputError, match=r"neither a run nor a SavedModel.*; give the directory of one"):
        find_saved_model(tmp_path, "dense")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(InputError, match="nothing is published yet: finish `tfpipe run`"):
        find_saved_model(tmp_path, "dense")


def test_answers_come_in_order_with_probabilities(served):
    answers = list(predict(served, TEXTS))
    assert [answer["text"] for answer in answers] == TEXTS
    assert [answer["label"] for answer in answers[:2]] == ["positive", "negative"]
    for answer in answers:
        assert list(answer["probabilities"]) == ["negative", "positive"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-6)
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)


def test_a_model_that_does_not_tell_its_names_gives_no_probability_of_each(tmp_path):
    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(self, text):
            return {"label": text, "probabilities": tf.tile([[0.25, 0.75]], [tf.size(text), 1])}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    assert list(predict(tmp_path, ["good"])) == [{"text": "good", "label": "good", "probability": 0.75}]


def test_many_texts_are_read_a_few_batches_ahead(served):
    read, count = [], 20 * lines.BATCH + 1

    def texts():
        for number in range(count):
            read.append(number)
            yield f"film {number}"

    answers = predict(served, texts())
    assert next(answers)["text"] == "film 0" and len(read) <= 6 * lines.BATCH
    assert [answer["text"] for answer in answers] == [f"film {n}" for n in range(1, count)]


def test_a_text_from_a_pipe_is_answered_before_the_next_comes(served):
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as source, open(writing, "w", encoding="utf-8", buffering=1) as target:
        answers = predict(served, (line.rstrip("\n") for line in source))
        for text in ("a good film", "a bad film"):
            target.write(text + "\n")
            assert next(answers)["text"] == text
        target.close()
        assert list(answers) == []


def test_json_lines_to_standard_output(served, capfd):
    run(served, TEXTS[:2], None, Path("-"))
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == TEXTS[:2]


def test_json_lines_hold_what_the_table_rounds(served, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    output = tmp_path / "answers.jsonl"
    run(served, [], texts, output)
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [answer["text"] for answer in answers] == TEXTS
    assert answers[0].keys() == {"text", "label", "probability", "probabilities"}
    assert capsys.readouterr().out == ""
    run(served, [TEXTS[0], "a\nb " + "long " * 50], None, None)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["positive", f"{answers[0]['probability']:.4f}"] and first.endswith(TEXTS[0])
    assert "  a b long " in second and second.endswith("…")


def test_a_model_without_the_text_signature_is_refused(tmp_path):
    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x):
            return {"y": x}

    other = Other()
    tf.saved_model.save(other, str(tmp_path), signatures={"serving_default": other.serve})
    with pytest.raises(InputError, match="no signature serving_default that takes text"):
        list(predict(tmp_path, ["a"]))


def two(text):
    return tf.ones([tf.size(text), 2])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda text: {"x": text}, r"serving_default gives no label \(string\)"),
        (lambda text: {"label": text}, r"serving_default gives no probabilities \(float32\)"),
        (lambda text: {"label": two(text), "probabilities": two(text)}, r"gives no label \(string\)"),
        (lambda text: {"label": text, "probabilities": text}, r"gives no probabilities \(float32\)"),
        (
            lambda text: {"label": tf.fill(tf.shape(text), b"\xff"), "probabilities": two(text)},
            "asked .'utf-8' ",
        ),
        (lambda text: {"label": text, "probabilities": two(text)[:, :0]}, r"probabilities \(1, 0\) for 1 texts"),
        (lambda text: {"label": text, "probabilities": two(text)[0, 0]}, r"probabilities \(\) for 1 texts"),
        (lambda text: {"label": text[:0], "probabilities": two(text)}, r"labels \(0,\), probabilities \(1, 2\) for 1"),
        (
            lambda text: {"label": tf.as_string(tf.strings.to_number(text)), "probabilities": two(text)},
            "asked .StringToNumberOp could not correctly convert string: good",
        ),
    ],
    ids="outputs probabilities floats strings encoding width scalar fewer failure".split(),
)
def test_a_model_that_answers_otherwise_is_refused_in_one_line(tmp_path, answer, said):
    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(self, text):
            return answer(text)

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(InputError, match=said) as error:
        list(predict(tmp_path, ["good"]))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [([], "no texts"), (["good", "bad \udcff"], r"'bad \\udcff' is not UTF-8")],
)
def test_texts_that_cannot_be_answered(served, texts, said):
    with pytest.raises(InputError, match=said):
        run(served, texts, None, None)


def test_input_files_that_cannot_be_read(served, tmp_path):
    output = tmp_path / "answers.jsonl"
    with pytest.raises(InputError, match=r"absent: no such file in "):
        run(served, [], tmp_path / "absent", output)
    with pytest.raises(InputError, match=r"/dev/zero, line 1: more than 1 MB; expected one text a line"):
        run(served, [], Path("/dev/zero"), None)
    (tmp_path / "latin.txt").write_bytes(b"good\nbad \xff\n")
    run(served, [], tmp_path / "latin.txt", output)
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["good"]
    (rejected,) = map(json.loads, (tmp_path / "answers.jsonl.rejected.jsonl").read_text().splitlines())
    assert rejected["line"] == 2 and rejected["reason"] == "undecodable bytes in the text (not UTF-8)"


PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda plain: pyarrow.compress(plain, "zstd", asbytes=True),
}


def read(path):
    return list(lines.open_lines(path))


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_texts_are_read_as_the_plain_ones(served, tmp_path, suffix):
    lines = [f"a good film {number}" for number in range(5000)]
    content = "\n".join(lines).encode()
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / f"x{suffix}").write_bytes(PACKED[suffix](content))
    assert read(tmp_path / f"x{suffix}") == read(tmp_path / "plain") == lines
    half = content.index(b"\n", len(content) // 2)
    (tmp_path / f"two{suffix}").write_bytes(PACKED[suffix](content[:half]) + PACKED[suffix](content[half:]))
    assert read(tmp_path / f"two{suffix}") == lines
    run(served, [], tmp_path / f"x{suffix}", tmp_path / "answers.jsonl")
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_damaged_compressed_file_is_refused_in_one_line(tmp_path, suffix):
    random = np.random.default_rng(0)
    whole = PACKED[suffix]("\n".join(f"{n} {random.integers(1 << 40)}" for n in range(3000)).encode())
    path = tmp_path / f"x{suffix}"
    for stop in [0, 1, 3, *random.integers(4, len(whole), 20), len(whole) - 1]:
        path.write_bytes(whole[:stop])
        with pytest.raises(InputError, match=rf"^--input {path}(, line [0-9]+: can't be read on|: empty)") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", PACKED)
def test_what_is_no_text_is_refused_with_its_line(tmp_path, suffix):
    path, content = tmp_path / "x.txt", PACKED[suffix](b"a good film\n" * 100)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.txt, line 1: compressed, not text; .*FILE\{suffix}$"):
        read(path)
    (tmp_path / f"twice{suffix}").write_bytes(PACKED[suffix](content))
    with pytest.raises(InputError, match="line 1: compressed, not text"):
        read(tmp_path / f"twice{suffix}")
    for content in (b"a film\na \0film\n", "a\nfilm\n".encode("utf-16-le"), "a film\nb".encode("utf-32-be")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.txt, line [12]: a NUL character, so this is no text file"):
            read(path)
    path.write_text("BZh is a name\n(a note)\n")
    assert read(path) == ["BZh is a name", "(a note)"]


def test_answers_are_not_written_plain_under_a_compressed_name(served, tmp_path):
    with pytest.raises(InputError, match=r"x\.gz: answers are written as plain files; .* without \.gz"):
        run(served, ["good"], None, tmp_path / "x.gz")
    assert not (tmp_path / "x.gz").exists()


NAMES = ("a", "b", "a|b", "c||d", "\\", "größe")


@pytest.fixture(scope="module")
def multi_label(tiny_run, tmp_path_factory):
    """A SavedModel of random weights, each of whose labels is given to a quarter of the texts, and the texts."""
    config = TINY | {"vocab_size": len(tiny_vocabulary())}
    weights = {f"bert.{name}": value for name, value in tiny_weights(config).items()}
    random = np.random.default_rng(1)
    weights["classifier.weight"] = random.normal(size=(len(NAMES), config["hidden_size"])).astype(np.float32)
    weights["classifier.bias"] = np.zeros(len(NAMES), np.float32)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(300)]
    classifier = Classifier(Architecture.from_dict(config), NAMES, "multi_label", 32, weights, {})
    tokenizer = Tokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32)
    weights["classifier.bias"] = -np.quantile(
        float_model(classifier)(tokenizer.dense(tf.constant(texts))), 0.75, axis=0
    )
    directory = tmp_path_factory.mktemp("multi")
    save_saved_model(ServedClassifier(float_model(classifier), classifier, tokenizer, pairs=False), directory)
    return directory, texts


def test_the_probability_is_that_of_the_answer(multi_label, tmp_path, capsys):
    model, texts = multi_label
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    run(model, [], tmp_path / "texts.txt", tmp_path / "answers.jsonl")
    sizes = set()
    for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        values = answer["probabilities"].values()
        assert tuple(answer["probabilities"]) == NAMES
        chosen = [name for name, value in answer["probabilities"].items() if value > 0.5]
        assert answer["labels"] == chosen == split_labels(answer["label"])
        assert answer["label"] == joined_labels(chosen)
        given = [value for value in values if value > 0.5]
        expected = min(given) if given else 1.0 - max(values)
        assert answer["probability"] == pytest.approx(expected, abs=1e-7) and expected >= 0.5
        sizes.add(len(chosen))
    assert sizes >= {0, 1, 2, 3}
    run(model, texts[:1], None, None)
    assert capsys.readouterr().out.endswith(f"  {texts[0]}\n")


@pytest.mark.parametrize(
    "about",
    [
        *({"task": b"multi_label"}, {"labels": [b"other"]}, {"labels": [b"\xff"]}),
        *({"task": b"single_label", "labels": [b"a"]}, {"task": b"single_label", "labels": [b"a", b"a"]}),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_in_one_line(tmp_path, about):
    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(self, text):
            return {"label": text, "probabilities": two(text)}

        @tf.function(input_signature=[])
        def about(self):
            return {name: tf.constant(value) for name, value in ({"task": b"multi_label"} | about).items()}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(InputError, match="can't be asked"):
        list(predict(tmp_path, ["good"]))


def test_each_line_has_one_answer(served, tmp_path):
    (tmp_path / "texts.txt").write_bytes("\ufeffgood\r\na\rb\n\nc\u2028d\x85e\x0c\n".encode())
    run(served, [], tmp_path / "texts.txt", tmp_path / "answers.jsonl")
    answers = [
        json.loads(line)["text"] for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert answers == ["good", "a\rb", "", "c\u2028d\x85e\x0c"]


def test_standard_input_is_read_as_utf8(served, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.txt").write_text("good ünd\nbad\n", encoding="utf-8")
    with open(tmp_path / "texts.txt", encoding="latin-1") as stdin, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        run(served, [], type(tmp_path)("-"), None)
        assert not stdin.closed
    assert [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()] == ["good ünd", "bad"]


def test_an_output_file_that_cannot_be_written(served, tmp_path):
    with pytest.raises(InputError, match=r"--output .*can't be written \(no such directory"):
        run(served, ["good"], None, tmp_path / "absent" / "answers.jsonl")


def test_a_copied_saved_model_answers_alike(served, tmp_path):
    moved = shutil.copytree(served, tmp_path / "moved")
    assert list(predict(moved, TEXTS)) == list(predict(served, TEXTS))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: _cut(model / "saved_model.pb"),
        lambda model: (model / "saved_model.pb").write_bytes(b""),
        lambda model: (model / "variables" / "variables.index").unlink(),
        lambda model: _cut(next((model / "variables").glob("variables.data*"))),
        lambda model: shutil.rmtree(model / "variables"),
    ],
    ids="graph empty index data variables".split(),
)
def test_a_damaged_saved_model_is_refused_in_one_line(served, tmp_path, damage):
    model = shutil.copytree(served, tmp_path / "model")
    damage(model)
    with pytest.raises(InputError, match="the SavedModel can't be loaded") as error:
        list(predict(model, TEXTS))
    assert str(model) in str(error.value) and "\n" not in str(error.value)
