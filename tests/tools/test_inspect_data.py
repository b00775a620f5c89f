"""`tfpipe inspect`: what it shows of data, and that a run can start with the settings that it prints."""

import gzip
import json
import time

import pytest
import yaml

from tfpipe.config.file import parse_config
from tfpipe.data.files.sources import source_files
from tfpipe.errors import InputError
from tfpipe.tools import inspect_data


def texts(count):
    return [f"the film of number {n} was seen on a rainy day" for n in range(count)]


def shown(path, capsys, *overrides):
    inspect_data.run([str(path)], list(overrides))
    return capsys.readouterr().out


def found(path, capsys, *overrides):
    inspect_data.run([str(path)], list(overrides), as_json=True)
    return json.loads(capsys.readouterr().out)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_a_table(tmp_path, capsys):
    rows = "".join(f"{n};{text};{'good' if n % 3 else 'bad'}\n" for n, text in enumerate(texts(90)))
    path = write(tmp_path / "rows.csv", f"id;review;mood\n{rows};a text of several words;\n")
    inspect_data.run([str(path)], [])
    out, err = capsys.readouterr()
    assert 'columns are separated by ";"' in err
    assert "labels of the first 90 rows, in their order: bad 30, good 60" in out
    assert "rejected: 1 × empty label" in out
    settings = yaml.safe_load(out.partition("to start with:\n")[2])
    assert settings["data"] == {"source": str(path), "text_column": "review", "label_column": "mood"}
    tree = {"name": "x", "encoder": {"source": "x"}} | settings
    assert source_files(parse_config(tree, "test").data)


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        (
            "nested.jsonl",
            "".join(
                json.dumps({"review": {"text": text}, "label": {"name": "ab"[n % 2]}}) + "\n"
                for n, text in enumerate(texts(9))
            ),
            {"text_column": "review.text", "label_column": "label.name"},
        ),
        (
            "array.json",
            json.dumps([{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts(9))]),
            {"text_column": "text", "label_column": "label"},
        ),
        (
            "toxic.csv",
            "id,comment,toxic,insult,threat\n"
            + "".join(f"x{n},{text},{n % 2},0,1\n" for n, text in enumerate(texts(9))),
            {"text_column": "comment", "label_column": ["toxic", "insult", "threat"]},
        ),
        (
            "tags.csv",
            "text,tags\n" + "".join(f"{text},\"['a', 'b']\"\n{text},['a']\n" for text in texts(9)),
            {"text_column": "text", "label_column": "tags"},
        ),
        ("train.ft.txt", "".join(f"__label__{'ab'[n % 2]} {text}\n" for n, text in enumerate(texts(9))), {}),
    ],
)
def test_the_columns(tmp_path, capsys, name, content, settings):
    data = found(write(tmp_path / name, content), capsys)
    chosen = data["settings"]["data"]
    assert chosen == (settings or {"text_column": "text", "label_column": "label"})
    several = name in ("toxic.csv", "tags.csv")
    assert data["settings"]["task"] == ("multi_label" if several else "single_label")
    assert data["problem"] is None and sum(data["labels"].values()) > 0


def test_a_partitioned_folder(tmp_path, capsys):
    for label in "ab":
        write(
            tmp_path / f"label={label}" / "part-0.json", "".join(json.dumps({"text": text}) + "\n" for text in texts(5))
        )
    data = found(tmp_path, capsys)
    assert data["count"] == 2 and data["labels"] == {"a": 5, "b": 5}
    assert data["settings"]["data"] == {"text_column": "text", "label_column": "label"}


def test_a_first_part_without_a_row(tmp_path, capsys):
    write(tmp_path / "part-0.csv", "")
    write(tmp_path / "part-1.csv", "text,label\n" + "".join(f"{text},{n % 2}\n" for n, text in enumerate(texts(6))))
    assert found(tmp_path, capsys)["labels"] == {"0": 3, "1": 3}


def test_what_would_end_prepare(tmp_path, capsys):
    path = write(tmp_path / "rows.csv", "text,label\n" + "".join(f"{text},a\n" for text in texts(9)))
    assert "prepare would stop: " in (out := shown(path, capsys)) and "holds only the label 'a'" in out


def test_too_many_rows_of_another_encoding(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,label\n" + "".join(f"{text}, une fête,{'ab'[len(text) % 2]}\n" for text in texts(200)), "cp1252"
    )
    problem = found(path, capsys, "data.separator=','", "data.columns=[text, more, label]", "data.text='{text} {more}'")
    assert problem["problem"].startswith(
        "201 of the first 201 rows can't be used, more than data.max_rejected_fraction"
    )
    assert "set data.encoding: cp1252, and look at the texts" in problem["problem"]


def test_several_settings_of_one_section(tmp_path, capsys):
    path = write(tmp_path / "rows.csv", "text,label\n" + "".join(f"{text},{text[-10:]}\n" for text in texts(9)))
    out = shown(path, capsys, "data.split.train=0.6", "data.split.test=0.3")
    data = yaml.safe_load(out.partition("to start with:\n")[2])["data"]
    assert data["split"] == {"train": 0.6, "test": 0.3} and data["source"] == str(path)
    assert f"prepare would stop: {path}: column" in " ".join(out.split())  # no list of one path


def test_settings_decide(tmp_path, capsys):
    path = write(tmp_path / "rows.csv", "".join(f"{n % 2},{text}\n" for n, text in enumerate(texts(9))))
    with pytest.raises(InputError, match="no header: the first line looks like a row"):
        shown(path, capsys)
    out = shown(path, capsys, "data.columns=[label, text]")
    settings = yaml.safe_load(out.partition("to start with:\n")[2])
    assert settings["data"]["columns"] == ["label", "text"] and "0 5, 1 4" in out
    with pytest.raises(InputError, match=r"--set columns=\[a\]: expected a setting of data"):
        shown(path, capsys, "columns=[a]")


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"\0\1\2\3" * 100, b"[]", b"{}"])
def test_nothing_to_read_is_said_in_a_line(tmp_path, capsys, content):
    for name in ("x.csv", "x.json", "x.parquet", "x"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="x") as caught:
            shown(tmp_path / name, capsys)
        assert "\n" not in str(caught.value)


def test_a_large_file_takes_no_longer(tmp_path, capsys):
    block = "".join(f"{text},{'ab'[n % 2]}\n" for n, text in enumerate(texts(1000))).encode()
    small, large = tmp_path / "small.csv.gz", tmp_path / "large.csv.gz"
    for path, times in ((small, 60), (large, 3000)):  # 3 MB, 150 MB
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(b"text,label\n")
            for _ in range(times):
                file.write(block)
    seconds = []
    for path in (small, large):
        started = time.process_time()
        assert found(path, capsys)["labels"]
        seconds.append(time.process_time() - started)
    assert seconds[1] < 3 * seconds[0] + 0.5
