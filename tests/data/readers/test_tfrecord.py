import pytest
import tensorflow as tf
from data.row_reading import rows_of

from tfpipe.data import block as block_module
from tfpipe.errors import InputError


def feature(value):
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(
        bytes_list=tf.train.BytesList(value=[v if isinstance(v, bytes) else v.encode() for v in values])
    )


def write(path, examples, options=""):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for example in examples:
            if not isinstance(example, bytes):
                features = {name: feature(value) for name, value in example.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            writer.write(example)
    return str(path)


@pytest.mark.parametrize("records", [2, 1000])
@pytest.mark.parametrize("name", ["x.tfrecord", "x.tfrecord.gz"])
def test_features_are_columns(tmp_path, monkeypatch, records, name):
    monkeypatch.setattr(block_module, "BLOCK_RECORDS", records)
    labels = [1, 0.0, "a", b"b", 3]
    examples = [{"text": f"tëxt {n}", "label": label, "n": n} for n, label in enumerate(labels)]
    path = write(tmp_path / name, examples, "GZIP" if name.endswith("gz") else "")
    expected = [(n + 1, f"tëxt {n}", None, label) for n, label in enumerate(("1", "0", "a", "b", "3"))]
    assert rows_of(path) == (expected, [], 0)


def test_several_values_are_several_labels(tmp_path):
    path = write(tmp_path / "x.tfrecord", [{"text": "x", "label": ["a", "b"]}])
    assert rows_of(path, task="multi_label")[0] == [(1, "x", None, "a|b")]


def test_unusable_examples(tmp_path):
    path = write(tmp_path / "x.tfrecord", [{"text": b"caf\xe9", "label": 1}, {"label": 1}, b"\xff\xff"])
    reasons = [reason for _, reason, _ in rows_of(path)[1]]
    assert reasons[:2] == [
        "undecodable bytes in the text (not UTF-8)",
        "no field 'text' (data.text_column); fields: 'label'",
    ]
    assert reasons[2].startswith("not a tf.train.Example")


def test_a_file_that_was_cut_short(tmp_path):
    path = write(tmp_path / "x.tfrecord", [{"text": "x", "label": 1}] * 10)
    content = (tmp_path / "x.tfrecord").read_bytes()
    (tmp_path / "x.tfrecord").write_bytes(content[:-5])
    with pytest.raises(InputError, match=r"x\.tfrecord: not a whole TFRecord file"):
        rows_of(path)
