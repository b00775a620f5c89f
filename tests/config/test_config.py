import itertools

import pytest
from conftest import tiny_config
from pydantic import BaseModel

from tfpipe.config.data import Data
from tfpipe.config.run import Config
from tfpipe.config.train import Train

LEAST = {"name": "x", "data": {"source": "rows.csv"}, "encoder": {"source": "encoder"}}


def test_every_setting_has_a_description():
    sections, seen = [Config], 0
    while sections:
        section = sections.pop()
        for name, field in section.model_fields.items():
            options = [field.annotation, *getattr(field.annotation, "__args__", ())]
            inner = [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]
            sections += inner
            seen += 1
            assert field.description or (all(each.__doc__ for each in inner) and inner), f"{section.__name__}.{name}"
    assert seen > 40


def test_variants_follow_from_the_sections():
    sections = {"prune": ((None, ()), ({}, ("pruned",))), "quantize": ((None, ()), ({}, ("int8",)))}
    for (prune, pruned), (quantize, int8) in itertools.product(*sections.values()):
        config = Config(**LEAST, prune=prune, quantize=quantize)
        assert config.variants == ("dense", *pruned, *int8)


def test_numbers_that_stand_for_text_are_taken_as_text(tiny_reviews, tiny_encoder):
    config = tiny_config(
        tiny_reviews,
        tiny_encoder,
        data__label_names={0: "no", 1: "yes"},
        data__filter={"year": 2004, "stars": [1, "2"]},
    )
    assert config.data.label_names == {"0": "no", "1": "yes"}
    assert config.data.filter == {"year": ["2004"], "stars": ["1", "2"]}


@pytest.mark.parametrize(
    ("name", "value", "other", "without", "with_"),
    [
        ("row_length", 64, "batching", "padded", "auto"),
        ("momentum", 0.5, "optimizer", "adamw", "sgd"),
        ("weight_decay", 0.1, "optimizer", "adam", "adamw"),
    ],
)
def test_a_setting_without_effect_is_refused(name, value, other, without, with_):
    with pytest.raises(ValueError, match=f"train.{name} .* has no effect with train.{other}: {without}; .* {with_}"):
        Train(**{name: value, other: without})
    assert getattr(Train(**{name: value, other: with_}), name) == value
    # the file that a run keeps has every default written out
    assert Train(**Train(**{other: without}).model_dump())


@pytest.mark.parametrize(
    "setting", [{"separator": ";"}, {"columns": ["text", "label"]}, {"quoting": False}, {"escape": "backslash"}]
)
def test_how_columns_are_separated_has_no_effect_on_other_formats(setting):
    (name,) = setting
    for format_name in ("auto", "csv", "tsv"):
        assert Data(**Data(source="x", format=format_name, **setting).model_dump())
    for format_name in ("json_lines", "parquet", "folder", "tfrecord"):
        with pytest.raises(
            ValueError, match=f"data.{name} has no effect with data.format: {format_name}; leave it out"
        ):
            Data(source="x", format=format_name, **setting)


@pytest.mark.parametrize("separator", ["", ";;", "a", "1", '"', "\n", "\\", "\\t", "é", "\0"])
def test_a_separator_is_one_character(separator):
    with pytest.raises(ValueError, match="expected one ASCII character that is no letter, digit, quote or backslash"):
        Data(source="x", separator=separator)


@pytest.mark.parametrize(
    "columns", [{"label_column": "text"}, {"label_column": ["a", "text"]}, {"text": "{title}: {label}"}]
)
def test_a_label_is_no_text(columns):
    with pytest.raises(ValueError, match="is a column of the text too; name the column of the labels"):
        Data(source="x", **columns)


def test_columns_name_each_column_once():
    columns = ("id", "text", "label")
    assert Data(source="x", columns=list(columns)).columns == columns
    with pytest.raises(ValueError, match=r"data\.columns names 'id' twice; give each column a name"):
        Data(source="x", columns=["id", "id", "text", "label"])
    with pytest.raises(ValueError, match="columns"):
        Data(source="x", columns=[])


def test_formats_are_a_set_that_holds_what_is_published():
    def formats(*names, **sections):
        return Config(**LEAST, export={"formats": names}, **sections).export.formats

    assert Config(**LEAST).export.formats == ("saved_model", "onnx")
    assert formats("onnx", "saved_model") == ("saved_model", "onnx")
    assert formats("saved_model", budget={"artifact": "saved_model"}) == ("saved_model",)
    for names, sections, message in (
        (("onnx",), {}, "saved_model is missing, which `publish` needs; add it"),
        (("saved_model", "onnx", "onnx"), {}, "a format is named twice; name each once"),
        (("saved_model", "onyx"), {}, "expected saved_model(,| or) onnx"),
        (("saved_model",), {}, r"budget.artifact onnx: not in export.formats \(saved_model\); add it there"),
        (
            ("saved_model",),
            {"budget": {"artifact": "saved_model"}, "verify": {"max_logit_diff": {"onnx": 1e-3}}},
            "verify.max_logit_diff.onnx has no effect without onnx in export.formats; leave it out",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            formats(*names, **sections)
