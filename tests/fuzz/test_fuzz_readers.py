"""Data files and the names of data: rows as another reader finds them, a reason for each other row, or one line."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import tensorflow as tf
from fuzz.harness import VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st

from tfpipe.config.data import Data
from tfpipe.config.file import parse_config
from tfpipe.data import block as block_module
from tfpipe.data import readers
from tfpipe.data.files.sources import identity, source_files
from tfpipe.data.labels.survey import before_reading
from tfpipe.data.readers import json_outline, json_shapes
from tfpipe.data.rows import read_rows
from tfpipe.encoders import source as encoder_source

LONGEST_REASON = 600


def rows_of(path, task="single_label", **data):
    """What `prepare` reads of a file: usable rows as (line, text, label), the others as (line, reason)."""
    tree = {"name": "x", "task": task, "data": {"source": str(path), **data}, "encoder": {"source": "x"}}
    config = parse_config(tree, where="test")
    usable, rejected = [], []
    files = source_files(config.data)
    form, labels = before_reading(config, files)
    for file in files:
        for block in readers.blocks(file, config.data):
            rows = read_rows(block, config, form, labels)
            found = ["|".join(values) for values in rows.labels]
            usable += zip(rows.lines, rows.texts, found, strict=True)
            rejected += [(each.line, each.reason) for each in rows.rejections]
            for value in (
                *rows.texts,
                *found,
                *rows.names,
                *(part for r in rows.rejections for part in vars_of(r)),
            ):
                value.encode()  # as it is written to the tables and to rejected.jsonl
                assert value in rows.texts or value in found or len(value) <= LONGEST_REASON, value[:100]
            assert all(text.strip() for text in rows.texts) and all(label == label.strip() for label in found)
    return usable, rejected


def vars_of(rejection):
    return rejection.name, rejection.reason, rejection.excerpt, rejection.label or ""


def usable(text, label) -> bool:
    return bool(text.strip()) and bool(label.strip()) and not surrogate(text) and not surrogate(label)


def surrogate(text) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 40)
    monkeypatch.setattr(block_module, "BLOCK_RECORDS", 3)


def csv_of(content: bytes, delimiter: str, quoting: int):
    """Rows, lines that have none, and whether a quote stays open, by csv alone, over the whole file."""
    text = content.decode("utf-8-sig", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    header = next(reader)
    place = {name: number for number, name in enumerate(header)}
    rows, lost = [], []
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error):
                return rows, lost, True
            lost += range(line, reader.line_num + 1)
            continue
        if row is None:
            return rows, lost, False
        if row != header and len(row) == len(header) and usable(row[place["text"]], row[place["label"]]):
            rows.append((line, row[place["text"]], row[place["label"]].strip()))
        elif row:
            lost.append(line)


def test_csv(tmp_path, small_blocks):
    contents = [
        b"text,label\none,a\ntwo,b\nthree,a\n" * 1 + b"four,b\n" * 8,
        'label,"text",more\r\na,"x ""y"" z",1\r\nb,"über\r\nzwei",2\r\n,,\r\n'.encode(),
        b'text\tlabel\nwith, comma\ta\n"two\nlines"\tb\n\nx\ty\n',
        "\ufefftext,label\nnaïve,a\n汉,b\n".encode(),
    ]
    tokens = (
        b'"',
        b'""',
        b",",
        b"\n",
        b"\r",
        b"\r\n",
        b'","',
        b'"\n',
        b"text,label\n",
        b'"a',
        b"x,a\n",
        b"\n\n",
        b'\n"',
        b"\t",
    )
    below = mutated([content.partition(b"\n")[2] for content in contents], tokens * 3)
    contents = mutated(contents, tokens * 3) | below.map(lambda content: b"text,label\n" + content)
    quoting = st.sampled_from([True, True, False, False, None])
    cases = st.tuples(contents, st.sampled_from(["data.csv", "data.csv", "data.tsv", "data.csv.gz"]), quoting)

    def check(case) -> bool:
        content, name, quoting = case
        path = tmp_path / name
        path.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
        if quoting is None:  # found, as is the separator
            return attempt(lambda: rows_of(path), name)[1] is not None
        delimiter = "\t" if name.endswith("tsv") else ","
        found, refused = attempt(lambda: rows_of(path, quoting=quoting, separator=delimiter), name)
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return refused is not None  # UTF-16, which csv_of does not read
        if refused is None:
            rows, lost, _ = csv_of(content, delimiter, csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
            assert found[0] == rows and [line for line, _ in found[1]] == lost
        elif "never closed" in refused:
            assert csv_of(content, delimiter, csv.QUOTE_MINIMAL)[2]
        return refused is not None

    always = [
        (content, "data.csv", True) for content in (b"", b"\n", b"\xff\xfe", b"text,label", b'"', b'text,label\n"')
    ]
    always += [("text,label\nx,a\n".encode(code), "data.csv", True) for code in ("utf-16", "utf-32", "utf-7", "cp037")]
    always += [(b"text,label\n" + b"x" * (17 << 20) + b",a\n", "data.csv", True)]
    always += [
        (b"text,label" + b",x" * 100_000 + b"\nx,a", "data.csv", True),
        (b",".join([b"text"] * 2), "data.csv", True),
    ]
    fuzz("CSV", cases, check, always)


def test_dialects_that_csv_writes(tmp_path, small_blocks):
    characters = st.sampled_from(list("ab,;|\t\"'\\ \n#=Né汉\u2028")) | st.characters(exclude_categories=["Cs"])
    texts = st.text(characters, max_size=12) | st.sampled_from(
        ["a, b\nc, d", '"', '"x', 'x"', "\\N", "sep=;", "text", "1"]
    )
    rows = st.lists(st.tuples(texts, st.sampled_from(["a", "b", "", "1", "label"]), texts), min_size=1, max_size=8)
    headers = st.permutations(["text", "label", "more"]) | st.permutations(["text", "label"])
    files = st.sampled_from([("data.csv", ","), ("data.tsv", "\t"), *(("data.csv", one) for one in ";|\t")])
    styles = st.tuples(files, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\n", "\r\n"]))
    before = st.sampled_from(["", "", "\ufeff", "sep=X{end}", "#TYPE x{end}"])

    def check(case) -> bool:
        ((name, separator), quoting, end), header, rows, first = case
        # csv does not quote a line end that is not its own; a text of tabs and lines may be rows of unquoted cells.
        rows = [(text.replace("\r", end), label, more.replace("\r", end)) for text, label, more in rows]
        if separator == "\t":
            rows = [tuple(cell.replace("\t", " ") if "\n" in cell else cell for cell in row) for row in rows]
        written = [dict(zip(("text", "label", "more"), row, strict=True)) for row in rows]
        first = first.replace("X", separator).format(end=end)
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
            file.write(first)
            writer = csv.DictWriter(
                file, header, extrasaction="ignore", delimiter=separator, quoting=quoting, lineterminator=end
            )
            writer.writeheader()
            line, expected, lost = 2 + first.count("\n"), [], set()
            for row in written:
                writer.writerow(row)
                if any(row[column] != column for column in header) and usable(row["text"], row["label"]):
                    expected.append((line, row["text"], row["label"]))
                else:
                    lost.add(line)
                line += 1 + sum(row[column].count("\n") for column in header)
        found, rejected = rows_of(tmp_path / name)
        doubted = {number for number, reason in rejected if "holds whole rows" in reason}
        assert found == [row for row in expected if row[0] not in doubted]
        assert {number for number, _ in rejected} - doubted == lost - doubted
        return bool(doubted)

    fuzz("CSV, dialects", st.tuples(styles, headers, rows, before), check)


def test_json_lines(tmp_path, small_blocks):
    path = tmp_path / "data.jsonl"
    lines = [
        {"text": "one", "label": 1}, {"text": "two", "label": "b", "more": [1, {"x": None}]}, {"text": "drei ü",
        "label": True},
        {"text": "v", "label": 2.0}, {"text": "x", "label": ["a"]}, {"label": "c", "text": "\u2028"}, {"text": "y",
        "label": {"a": 1}},
    ]  # fmt: skip
    content = b"\n".join(json.dumps(line, ensure_ascii=False).encode() for line in lines)
    values = [{"text": "x", "label": value} for value in VALUES] + [{"text": value, "label": "a"} for value in VALUES]
    contents = [content, content.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + content]
    contents += [content + b"\n" + json_text(value).encode() + b"\n" + content for value in values]
    deep = [b'{"text": "x", "label": %s1%s}' % (b"[" * n, b"]" * n) for n in (900, 950, 980, 985, 990, 1000)]

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path), path.name)
        marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # UTF-16
        if refused is None and not marked and is_json_lines(path):
            lines = {line: (text, label) for line, text, label in found[0]}
            lost = {line for line, _ in found[1]}
            for number, raw in enumerate(content.split(b"\n"), start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").strip()
                assert (number in lines) + (number in lost) == bool(text), number
                if number in lines:
                    record = json.loads(text)
                    assert lines[number] == (as_text(record["text"]), as_label(record["label"]))
                elif text:
                    assert not plain_row(text), text
        return refused is not None

    fuzz(
        "JSON Lines",
        mutated(contents, (b"\n", b"\r", b'{"text": "x", "label": "a"}\n', *deep)),
        check,
        [b"", b"\n", *deep],
    )


def is_json_lines(path) -> bool:
    data = Data(source=str(path))
    return json_shapes.document_blocks(source_files(data)[0], data) is None


def test_json_documents(tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(json_outline, "CHUNK_BYTES", 100)
    path = tmp_path / "data.json"
    rows = [{"text": f'tëxt "{n}" [,', "label": n % 3, "more": [{"x": None}]} for n in range(6)]
    columns = {name: {str(n): row[name] for n, row in enumerate(rows)} for name in ("text", "label")}
    lists = {name: [row[name] for row in rows] for name in ("text", "label")}
    split = {"columns": ["text", "label"], "index": [0, 1], "data": [["x", "a"], ["y", "b"]]}
    trees = [rows, {"data": rows}, {"n": 1, "data": rows, "z": {}}, {"train": rows[:2], "test": rows[2:]}, columns]
    trees += [
        lists,
        split,
        {str(n): row for n, row in enumerate(rows)},
        {"val": [["x", "a"]]},
        {"a": {"b": rows}},
        [[]],
    ]
    texts = [json.dumps(tree, indent=indent) for tree in trees for indent in (None, 1)]
    texts += ["\n".join(json.dumps(row, indent=1) for row in rows), "\ufeff" + json.dumps(rows, ensure_ascii=False)]
    written = mutated(
        [text.encode() for text in texts], (b"\n", b"},", b"],", b'{"', b'":', b'{"text": "x", "label": "a"}')
    )

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path), path.name)
        with contextlib.suppress(ValueError, RecursionError):  # else Python's own reader finds no document in it
            document = json.loads(content.decode("utf-8-sig", "surrogateescape"))
            expected = document if isinstance(document, list) else None
            if isinstance(document, dict) and list(document) == ["data"] and isinstance(document["data"], list):
                expected = document["data"]
            if refused is None and expected is not None:
                kept = {line: (text, label) for line, text, label in found[0]}
                assert len(kept) + len(found[1]) == len(expected)
                for number, row in enumerate(expected, start=1):
                    if number in kept:
                        assert kept[number] == (as_text(row["text"]), as_label(row["label"]))
                    else:
                        assert not plain_row(json.dumps(row))
        return refused is not None

    trees = mutated_tree(trees).map(lambda tree: json_text(tree).encode())
    fuzz(
        "JSON documents",
        written | trees,
        check,
        [b"", b"[", b"{", b"[]", b"{}", b"[,]", b"{,}", b"[{}", b'{"a"', b"\xef\xbb\xbf["],
    )


def test_dotted_names(tmp_path):
    path = tmp_path / "data.jsonl"
    tree = {
        "a": {"b": "x", "c.d": {"e": "y"}, "0": "z"},
        "a.b": {"c": "w"},
        "l": [{"t": "v"}, [["u"]], None],
        "": {"": "e"},
    }
    parts = st.sampled_from(
        ["a", "b", "c", "c.d", "d", "e", "0", "1", "-1", "-2", "l", "t", "", "x", "ü", "9" * 12, "²", "+0"]
    )
    names = st.lists(parts, min_size=1, max_size=5).map(".".join)

    def check(case) -> bool:
        record, name = case
        text = json_text(record)
        path.write_text(f'{{"x": {text}, "y": {text}}}\n{{}}', encoding="utf-8")  # two lines: no document
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        found, refused = attempt(
            lambda: rows_of(path, text_column=f"x.{name}", label_column=f"y.{name}"), path.name, "data.text_column"
        )
        if refused is None and isinstance(value, dict):
            meant = list(meanings(value, name.split(".")))
            assert len(found[0]) + len(found[1]) == 2
            if found[0]:
                assert found[0][0][1] == as_text(meant[0])
            elif meant and isinstance(meant[0], str):
                assert not usable(meant[0], meant[0])
            elif not meant:
                assert f"no field {'x.' + name!r}" in found[1][0][1]
        return refused is not None

    fuzz("dotted names", st.tuples(mutated_tree([tree]), names), check)


def meanings(value, parts):
    """Every value that a name may mean, the one whose fields have the longest names first."""
    if value is None or not parts:
        yield value
    elif isinstance(value, dict):
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if name in value:
                yield from meanings(value[name], parts[count:])
    elif isinstance(value, list) and parts[0].isascii() and parts[0].removeprefix("-").isdigit() and len(parts[0]) < 10:
        with contextlib.suppress(IndexError):
            yield from meanings(value[int(parts[0])], parts[1:])


def test_templates(tmp_path):
    path = tmp_path / "data.jsonl"
    pieces = st.sampled_from(
        ["{", "}", "{{", "}}", "{a}", "{b}", "{c.d}", "{c.0}", "{x}", " ", "\n", "text", "ü", ":", "{a:>5}", "{a!r}"]
    )
    values = st.sampled_from(["x", "", " ", "ü", None, 1, 2.0, True, ["x"], {"d": "y"}, "{a}", "\\1"])
    rows = st.fixed_dictionaries({"a": values, "b": values, "c": values})

    def check(case) -> bool:
        pieces, row = case
        path.write_text(json.dumps({**row, "label": "x"}))
        found, refused = attempt(lambda: rows_of(path, text="".join(pieces)), path.name, "data: ")
        names = [piece[1:-1] for piece in pieces if piece[0] == "{" and len(piece) > 2]
        if refused is None and not {"{", "}"} & set(pieces) and all(isinstance(row.get(name), str) for name in names):
            braces = {"{{": "{", "}}": "}"}
            text = "".join(row[piece[1:-1]] if piece[1:-1] in names else braces.get(piece, piece) for piece in pieces)
            filled = any(row[name].strip() for name in names)
            assert [each[1] for each in found[0]] == ([text.strip()] if filled else [])
        return refused is not None

    fuzz("templates", st.tuples(st.lists(pieces, max_size=6), rows), check)


def as_text(value) -> str:
    return value if isinstance(value, str) else as_label(value)


def as_label(value) -> str:
    if isinstance(value, list):
        (value,) = value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    assert isinstance(value, str | int | float)
    return str(value).strip()


def plain_row(text: str) -> bool:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("text", "label")):
        return False
    return usable(record["text"], record["label"])


def parquet_files() -> list[bytes]:
    texts = ["one", "two", "drei ü", "x" * 50, None, "汉字"] * 3
    columns = {
        "strings": pa.array(["a", "b", "a", None, "b", "c"] * 3),
        "numbers": pa.array([1, 2, None, 4, 5, 6] * 3),
        "floats": pa.array([1.0, 2.5, float("nan"), float("inf"), 5, 6] * 3),
        "lists": pa.array([["a"], ["b", "c"], [], None, ["a"], ["b"]] * 3),
        "bytes": pa.array([b"a", b"\xff", b"", None, b"b", b"c"] * 3),
        "days": pa.array([0, 10**9, -(10**9), None, 1, 2] * 3, pa.date32()),
        "times": pa.array([0, 2**62, -(2**62), None, 1, 2] * 3, pa.timestamp("ns", "UTC")),
        "struct": pa.array([{"a": 1}, {"a": 2}, None, {"a": 3}, {"a": 4}, {"a": 5}] * 3),
        "decimals": pa.array([1, 2, 3, None, 5, 6] * 3, pa.decimal128(10, 2)),
        "categories": pa.array(["a", "b", "a", None, "b", "c"] * 3).dictionary_encode(),
        "durations": pa.array([0, 2**62, -(2**62), None, 1, 2] * 3, pa.duration("s")),
    }
    files = []
    for label in columns.values():
        for options in ({"compression": "none", "use_dictionary": False}, {"compression": "snappy"}):
            sink = io.BytesIO()
            parquet.write_table(pa.table({"text": texts, "label": label}), sink, row_group_size=7, **options)
            files.append(sink.getvalue())
    return files


def test_parquet(tmp_path, small_blocks):
    path = tmp_path / "data.parquet"

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path), path.name)
        if refused is None:
            try:
                table = parquet.read_table(pa.BufferReader(content), columns=["text", "label"], use_threads=False)
                rows = list(zip(*(table.column(name).to_pylist() for name in ("text", "label")), strict=True))
            except (ValueError, OverflowError, pa.ArrowException, OSError):
                return False  # a value that can't be had: the reader rejects its row, pyarrow the table
            lines = {line: (text, label) for line, text, label in found[0]}
            assert len(lines) + len(found[1]) == len(rows)
            for number, (text, label) in enumerate(rows, start=1):
                if number in lines:
                    text = text.decode() if isinstance(text, bytes) else text
                    assert not isinstance(text, str) or lines[number][0] == text
                    label = label.decode() if isinstance(label, bytes) else label
                    if isinstance(label, str | int | float | list):
                        assert lines[number][1] == as_label(label)
                    assert not isinstance(label, dict)
                elif isinstance(text, str) and isinstance(label, str):
                    assert not usable(text, label)
        return refused is not None

    fuzz("Parquet", mutated(parquet_files(), most=3), check, [b"", b"PAR1", b"PAR1PAR1", *parquet_files()])


def test_tfrecord(tmp_path, small_blocks):
    path = tmp_path / "data.tfrecord"

    def example(**features) -> bytes:
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def of(**kinds):
        return tf.train.Feature(**kinds)

    text = of(bytes_list=tf.train.BytesList(value=["ü".encode()]))
    labels = [
        of(bytes_list=tf.train.BytesList(value=[b"a"])), of(int64_list=tf.train.Int64List(value=[1])),
        of(float_list=tf.train.FloatList(value=[0.5, 1.0])), of(bytes_list=tf.train.BytesList(value=[b"\xff"])), of(),
    ]  # fmt: skip
    records = [example(text=text, label=label) for label in labels]

    def write(records: list[bytes]) -> bytes:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
        return path.read_bytes()

    whole = write(records)
    broken = st.lists(mutated(records), max_size=4).map(write)

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path), path.name)
        if refused is None:
            count = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
            assert len(found[0]) + len(found[1]) == count
        return refused is not None

    fuzz("TFRecord", mutated([whole], most=2) | broken, check, [b"", whole, whole[:-1]])


NAMES = [
    b"a",
    b"b",
    b"label",
    b".hidden",
    b"\xff",
    b"x\ny",
    "ü".encode(),
    b"a b",
    b"x" * 200,
    b"..a",
    b"a.csv",
    b"\xed\xa0\x80",
    b"[a]",
    b"*",
]


def test_folders(tmp_path, small_blocks):
    names = st.sampled_from(NAMES)
    contents = st.sampled_from(
        [b"text", b"", b" ", b"\xff", b"\0", b"\xef\xbb\xbfx", b"x\ny", b"x" * 3000]
    ) | st.binary(max_size=5)
    kinds = st.sampled_from(["file", "file", "file", "link", "loop", "pipe", "directory"])
    entries = st.lists(st.tuples(names, names, contents, kinds), max_size=6)
    root = tmp_path / "data"

    def check(entries) -> bool:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        wanted = {}
        for label, name, content, kind in entries:
            folder = os.path.join(os.fsencode(root), label)
            path = os.path.join(folder, name)
            if os.path.lexists(path):
                continue
            os.makedirs(folder, exist_ok=True)
            if kind == "file":
                with open(path, "wb") as file:
                    file.write(content)
            elif kind == "directory":
                os.mkdir(path)
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                os.symlink(b"/dev/null" if kind == "link" else path, path)
            if kind == "file" and not label.startswith(b".") and not name.startswith(b"."):
                wanted[path] = content
        found, refused = attempt(lambda: (rows_of(root), identity(Data(source=str(root)))), str(root))
        if refused is None:
            rows = sorted(wanted)
            assert len(found[0][0]) + len(found[0][1]) == len(rows)
            texts = [
                (wanted[path].decode("utf-8-sig", "replace"), os.path.basename(os.path.dirname(path))) for path in rows
            ]
            texts = [(text, label.decode()) for text, label in texts if text.strip() and "\ufffd" not in text]
            assert [(text, label) for _, text, label in found[0][0]] == [(text, label.strip()) for text, label in texts]
        return refused is not None

    fuzz("folders", entries, check)


def test_names_of_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "a.csv").write_text("text,label\nx,a\n")
    parts = st.sampled_from(
        ["package:", "keras-nlp:", "keras-nlp:./", "package:json", "package:tfpipe/", "package:tfpipe", "/", "..",
        ".", "~", "~nobody", "*", "**",
        "[", "a.csv", "x" * 300,
         "\0", "\ud800", "\udcff", "://", "ram", "foo", "ram://", "gs", ":", "@", "#", "\n", " ", "", "a.csv.gz",
         "-00000-of-00001", ".parquet",
         "C:\\", "?", "{a}", "%s", "json/decoder.py", "/dev/null", "/proc/self/mem"]
    )  # fmt: skip
    sources = st.lists(parts | st.text(max_size=3), min_size=1, max_size=5).map("".join)
    sources = sources.filter(lambda source: "**" not in source or not source.startswith(("/", "~", "..")))

    def check(source: str) -> bool:
        place = source.replace("\n", " ").strip()[:20]
        places = (place, repr(source)[:20], "data.source", " ".join(source.split())[:20])
        places += ("/",) if set("*?[") & set(source) else ()  # then what was found is named
        if source.partition(":")[0] in ("hf", "tfds", "gs"):
            return False
        _, first = attempt(lambda: source_files(Data(source=source)), *places)
        _, second = attempt(
            lambda: encoder_source.identity(source),
            *places,
            "encoder.source",
            "/json",
            "/tfpipe",
            "config.json",
        )
        return first is not None and second is not None

    always = [
        "~\0",
        "x" * 5000,
        "package:json/" + "x" * 5000,
        "~nobody/x",
        "/dev/null",
        "package:" + "a." * 1000,
        "ram://\ud800",
    ]
    fuzz("data.source, encoder.source", sources, check, always)


def test_compressed_files_that_are_damaged(tmp_path):
    content = gzip.compress(b"text,label\n" + b"row,a\n" * 200)
    for number in range(len(content)):
        for damaged in (content[:number], content[:number] + bytes([content[number] ^ 255]) + content[number + 1 :]):
            (tmp_path / "data.csv.gz").write_bytes(damaged)
            attempt(lambda: rows_of(tmp_path / "data.csv.gz"), "data.csv.gz")
