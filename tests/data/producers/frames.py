"""Data frames: pandas, polars, R; and the files of Arrow, NumPy and TensorFlow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet
from data.producers.example import Example

ROWS = [
    ("the kettle sings, softly", "warm"),
    ('she said "no" twice', "cold"),
    ("first line\nsecond line", "warm"),
    ("naïve café", "cold"),
]
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
FRAME = pd.DataFrame({"text": TEXTS, "label": LABELS})
LISTS = [("kettle and harbor", "tea", "sea"), ("only the harbor", "sea"), ("no subject",)]
_NUMBERED = [("a", "1"), ("b", "0"), ("c", "1")]
_TABLE = pa.table({"text": TEXTS, "label": LABELS})


def _lists(kind=list) -> pd.DataFrame:
    return pd.DataFrame({"text": [row[0] for row in LISTS], "tags": [kind(row[1:]) for row in LISTS]})


def _stream(path):
    with ipc.new_stream(str(path), _TABLE.schema) as writer:
        writer.write_table(_TABLE)


def _file(path):
    with ipc.new_file(str(path), _TABLE.schema) as writer:
        writer.write_table(_TABLE)


def _categories(path):
    labels = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1], pa.uint32()), pa.array(["warm", "cold"]))
    parquet.write_table(pa.table({"text": pa.array(TEXTS, pa.large_string()), "label": labels}), path)


def _tfrecord(path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for text, label in _NUMBERED:
            features = {
                "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


_POLARS = 'text,label\n"the kettle sings, softly",warm\n"she said ""no"" twice",cold\n'
_MULTI = {"task": "multi_label", "settings": {"label_column": "tags"}}
_PANDAS = "pandas 3.1.1"

EXAMPLES = [
    Example(_PANDAS, "`to_csv(index=False)`", {"x.csv": lambda path: FRAME.to_csv(path, index=False)}, ROWS),
    Example(
        _PANDAS,
        "`to_csv`, with its index",
        {"x.csv": FRAME.to_csv},
        ROWS,
        read="as it is; the index is a column like others",
    ),
    Example(_PANDAS, '`to_csv(sep="\\t")`', {"x.tsv": lambda path: FRAME.to_csv(path, sep="\t")}, ROWS),
    Example(_PANDAS, "`to_csv`, compressed", {"x.csv.gz": lambda path: FRAME.to_csv(path, index=False)}, ROWS),
    Example(
        _PANDAS,
        '`to_csv(sep=";")`',
        {"x.csv": lambda path: FRAME.to_csv(path, sep=";", index=False)},
        ROWS,
        read="as it is; the header shows the separator",
    ),
    Example(
        _PANDAS,
        '`to_csv(doublequote=False, escapechar="\\\\")`',
        {"x.csv": lambda path: FRAME.to_csv(path, index=False, doublequote=False, escapechar="\\")},
        ROWS,
        {"escape": "backslash"},
    ),
    Example(
        _PANDAS,
        "numbers beside missing ones, so that labels are 1.0",
        {"x.csv": pd.DataFrame({"text": ["a", "b", "c", "d"], "label": [1, 0, 1, None]}).to_csv},
        _NUMBERED,
        rejected=1,
        read="1.0 is 1, an empty label is rejected",
        names=("0", "1"),
    ),
    Example(
        _PANDAS,
        "truth values in CSV",
        {"x.csv": pd.DataFrame({"text": ["a", "b"], "label": [True, False]}).to_csv},
        [("a", "true"), ("b", "false")],
        read="True is true, as in all other formats",
        names=("false", "true"),
    ),
    Example(
        _PANDAS,
        "`astype(str)` of missing labels",
        {"x.csv": pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["1", "0", "1", "nan"]}).to_csv},
        _NUMBERED,
        {"missing": ["nan"]},
        unlabeled=1,
        read="without the setting, a warning names the label `nan`",
    ),
    Example(
        _PANDAS,
        "lists in CSV",
        {"x.csv": lambda path: _lists().to_csv(path, index=False)},
        LISTS,
        read="as lists; tfpipe reports it",
        says="each cell is read as a list",
        **_MULTI,
    ),
    Example(
        _PANDAS,
        "NumPy arrays in CSV, as from Parquet",
        {"x.csv": lambda path: _lists(lambda row: np.array(row, dtype=object)).to_csv(path, index=False)},
        LISTS,
        read="as lists; tfpipe reports it",
        says="each cell is read as a list",
        **_MULTI,
    ),
    Example(_PANDAS, "`to_parquet`", {"x.parquet": FRAME.to_parquet}, ROWS),
    Example(_PANDAS, "`to_parquet`, lists", {"x.parquet": _lists().to_parquet}, LISTS, **_MULTI),
    *(
        Example(
            _PANDAS,
            f'`to_json(orient="{orient}")`' + note,
            {"x.json": lambda path, orient=orient: FRAME.to_json(path, orient=orient)},
            ROWS,
        )
        for orient, note in (
            ("columns", ", the default"),
            ("records", ""),
            ("split", ""),
            ("table", ""),
            ("index", ""),
        )
    ),
    Example(
        _PANDAS,
        '`to_json(orient="values")`',
        {"x.json": lambda path: FRAME.to_json(path, orient="values")},
        read="refused: no column has a name; the error has the `jq` command that gives names",
        refused="jq",
    ),
    Example(
        _PANDAS,
        "`to_json(lines=True)`",
        {"x.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True)},
        ROWS,
    ),
    Example(
        _PANDAS,
        "`to_pickle`",
        {"x.pkl": FRAME.to_pickle},
        read="refused: a pickle runs code when it is loaded",
        refused="a Python pickle",
    ),
    Example("polars 2.1.0", "`write_csv`", {"x.csv": _POLARS}, ROWS[:2]),
    Example(
        "polars 2.1.0",
        "`write_json`",
        {
            "x.json": '[{"text":"the kettle sings, softly","label":"warm"},'
            '{"text":"she said \\"no\\" twice","label":"cold"}]'
        },
        ROWS[:2],
    ),
    Example("polars 2.1.0", "`write_parquet`, Categorical", {"x.parquet": _categories}, ROWS),
    Example(
        "R 4.2",
        "`write.csv`",
        {
            "x.csv": '"","text","label"\n"1","the kettle sings, softly","warm"\n"2","she said ""no"" twice","cold"\n'
            '"3","c",NA\n'
        },
        ROWS[:2],
        {"missing": ["NA"]},
        unlabeled=1,
        read="without the setting, a warning names the label `NA`",
    ),
    Example(
        "R 4.2",
        "`write.csv2(row.names=FALSE)`",
        {"x.csv": '"text";"label"\n"the kettle sings, softly";"warm"\n"she said ""no"" twice";"cold"\n'},
        ROWS[:2],
        read="as it is; the header shows the separator",
    ),
    Example(
        "R 4.2",
        '`write.table(sep="\\t")`',
        {"x.tsv": '"text"\t"label"\n"1"\t"the kettle sings, softly"\t"warm"\n"2"\t"she said \\"no\\" twice"\t"cold"\n'},
        ROWS[:2],
        {"escape": "backslash"},
        read="row names are found; the setting is for quotes in texts",
    ),
    Example("pyarrow 25.0.1", "Arrow file (`ipc.new_file`)", {"x.arrow": _file}, ROWS),
    Example("pyarrow 25.0.1", "Arrow stream (`ipc.new_stream`)", {"x.arrows": _stream}, ROWS),
    Example(
        "pyarrow 25.0.1", "Feather (`write_feather`)", {"x.feather": lambda p: feather.write_feather(_TABLE, p)}, ROWS
    ),
    Example(
        "pyarrow 25.0.1",
        "Parquet, text as `binary` (old Spark, Impala)",
        {
            "x.parquet": lambda path: parquet.write_table(
                _TABLE.set_column(0, "text", _TABLE["text"].cast("binary")), path
            )
        },
        ROWS,
        read="as UTF-8",
    ),
    Example(
        "NumPy 2.4.6",
        "vectors of zeros and ones as text",
        {"x.csv": f"text,tags\nboth,{np.array([1, 1])}\nsea,{np.array([0, 1])}\nnone,{np.array([0, 0])}\n"},
        [("both", "tea", "sea"), ("sea", "sea"), ("none",)],
        {"label_column": "tags", "label_names": {"tea": "tea", "sea": "sea"}},
        task="multi_label",
        read="as vectors for the classes in `label_names`; tfpipe reports it",
        says="a vector of 2 zeros and ones",
    ),
    Example("TensorFlow 2.20", "TFRecord of `tf.train.Example`", {"x.tfrecord": _tfrecord}, _NUMBERED),
]
