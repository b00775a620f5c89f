import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.data.files.sources import identity, source_files
from tfpipe.errors import InputError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset prepared on disk, as TensorFlow Datasets keeps them: real loading, no network."""
    directory = tmp_path_factory.mktemp("tfds")

    def dataset(split, count):
        columns = {"text": [f"{split} {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        return tf.data.Dataset.from_tensor_slices(columns)

    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_reviews",
        version="1.0.0",
        data_dir=directory,
        features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])}
        ),
        split_datasets={"train": dataset("train", 30), "test": dataset("test", 10), "unsupervised": dataset("u", 5)},
        disable_shuffling=True,
    )
    return directory


@pytest.fixture(autouse=True)
def home(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared), raising=False)


def test_splits_are_given_and_class_labels_have_names():
    files = source_files(Data(source="tfds:tiny_reviews"))
    assert [(file.name, file.split) for file in files] == [
        ("tfds:tiny_reviews#train", "train"),
        ("tfds:tiny_reviews#test", "test"),
    ]
    usable, rejected, _ = rows_of("tfds:tiny_reviews")
    assert len(usable) == 40 and not rejected
    assert usable[:2] == [(1, "train 0", None, "neg"), (2, "train 1", None, "pos")]


def test_a_slice_and_its_identity():
    assert [file.split for file in source_files(Data(source="tfds:tiny_reviews#train[:50%]"))] == [None]
    assert len(rows_of("tfds:tiny_reviews#train[:50%]")[0]) == 15
    (found,) = identity(Data(source="tfds:tiny_reviews#train")).values()
    assert "tiny_reviews/1.0.0 train" in found


def test_its_folder_names_the_dataset(prepared):
    message = r"/1.0.0: a dataset of TensorFlow Datasets, .*; set data.source: tfds:tiny_reviews, and TFDS_DATA_DIR"
    with pytest.raises(InputError, match=message):
        rows_of(str(prepared / "tiny_reviews" / "1.0.0"))


def test_what_is_not_there():
    with pytest.raises(InputError, match=r"no column 'body' \(data.text_column\); .* file: '(text|label)', '"):
        rows_of("tfds:tiny_reviews#train", text_column="body")
    with pytest.raises(InputError, match=r"#nope: no such split"):
        rows_of("tfds:tiny_reviews#nope")
    with pytest.raises(InputError, match=r"tfds:no_such_set: can't be loaded"):
        source_files(Data(source="tfds:no_such_set"))
