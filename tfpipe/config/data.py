"""The section `data` of a configuration: the origin of the rows, and their way to examples."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from tfpipe.config.rows import Augmentation, Cleaning, Duplicates, Split
from tfpipe.config.template import parse_template
from tfpipe.config.types import Fraction, PositiveInt, Section, Source, Text, as_list

SPLITS = ("train", "validation", "test")
SplitName = Literal["train", "validation", "test"]
TOOLS = ("label_studio", "doccano", "prodigy", "argilla")
"""annotation tools whose exports are read"""


# Codecs of Python that are no encodings of files.
_NO_ENCODINGS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "unicode_escape")


def _as_encoding(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        name = codecs.lookup(value).name
        "x".encode(name)  # LookupError: such as hex, which is no encoding of text
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError, UnicodeError):
        name = None
    if name is None or name in _NO_ENCODINGS:
        raise ValueError("expected the name of an encoding, such as cp1252, latin-1, gb18030, cp932 or utf-16")
    return value


def pattern_columns(pattern: str) -> list[str]:
    """Returns the columns of a pattern such as `{label} {text}`, in their order."""
    return re.findall(r"\{([^{}]*)\}", pattern)


_OF_FORMATS = {
    "encoding": ("auto", *TOOLS, "csv", "tsv", "json_lines", "lines", "fasttext", "folder"),
    "line": ("lines",),
    "file_name": ("lines",),
    "sheet": ("auto", "excel"),
    "query": ("auto", "sqlite", "duckdb"),
}


def _as_separator(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n\\\0':
        raise ValueError(
            'expected one ASCII character that is no letter, digit, quote or backslash, such as ; or "\\t"'
        )
    return value


class Data(Section):
    """The origin of the rows, and their way to examples."""

    source: Source | dict[SplitName, Source] = Field(
        description="file, glob, folder, FILE.zip/MEMBER, gs://…, package:NAME/PATH, hf:NAME, tfds:NAME; a list of "
        "these; or given splits: {train: …, validation: …, test: …}"
    )
    format: Literal[
        "auto",
        *TOOLS,
        *("csv", "tsv", "json_lines", "lines", "fasttext", "folder"),
        *("parquet", "arrow", "excel", "sqlite", "duckdb", "tfrecord"),
    ] = Field(
        "auto",
        description="of the files; auto: by their names, such as .csv, .tsv.gz, .jsonl, .parquet, .xlsx, else by their "
        "content; the names of annotation tools are for their exports, in JSON or CSV",
    )
    encoding: Annotated[str, BeforeValidator(_as_encoding)] | None = Field(
        None,
        description="of files of text, by its name in Python, such as cp1252, gb18030, cp932; null: UTF-8, or what a "
        "byte order mark says",
    )
    line: Text | None = Field(
        None,
        description="lines: what a line holds, such as '{label} {text}' or '{text}@{label}', with columns in braces; "
        "null: a text",
    )
    file_name: Text | None = Field(
        None,
        description="lines: what the name of a file says, such as rt-{label}.txt or '{label}/*.txt'; null: nothing",
    )
    sheet: Text | None = Field(None, description="excel: name of the sheet; null: the only one that has rows")
    query: str | None = Field(
        None,
        description="sqlite and duckdb: a SELECT that gives the columns, with an ORDER BY; null: the only table that "
        "has the wanted columns",
    )
    separator: Annotated[str, AfterValidator(_as_separator)] | None = Field(
        None, description="csv and tsv: what stands between columns, such as ;; null: by format, or as the header shows"
    )
    columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None, description="csv and tsv: names of all columns, where the first line holds a row; null: it holds names"
    )
    quoting: bool | None = Field(
        None,
        description="csv and tsv: whether fields may stand in quotes; false: a quote is a character like any other; "
        "null: found between tabs, else true; a field that holds whole rows is rejected",
    )
    escape: Literal["backslash"] | None = Field(
        None,
        description=r"csv and tsv: backslash: \n, \t, \\ stand for characters, as PostgreSQL and MySQL write text, and "
        r"\" for a quote within quotes; null: a backslash is a character like any other",
    )
    records: str | None = Field(
        None,
        description="JSON documents: dotted name of the array that holds the records, such as data or hits.hits; null: "
        "the document itself, or the only array of objects in it",
    )
    text_column: str = Field(
        "text",
        description="column that holds the text; review.text is the field text of the object review, "
        "messages.1.content counts in a list",
    )
    text: str | None = Field(
        None,
        description="instead of text_column, a template of several columns, such as '{title} {body}'; an empty part "
        "leaves nothing, white space at both ends is stripped, {{ is a brace; null: text_column",
    )
    text_pair_column: str | None = Field(None, description="column of the second text of a pair; null: single texts")
    label_column: str | tuple[str, ...] = Field(
        "label", description="column that holds the label; or a list of columns of zeros and ones, one for each label"
    )
    label_names: dict[Text, Text] | None = Field(
        None,
        description="value in the file -> name of the label, in the order of the classes; null: values as found, or "
        "the classes that the file declares",
    )
    label_form: Literal["auto", "plain", "list", "multi_hot"] = Field(
        "auto",
        description="of a label cell. plain: a label, or several with label_separator; list: a list, also as JSON, "
        "Python, NumPy, PostgreSQL, DuckDB or Stack Exchange write it; multi_hot: a vector of zeros and ones for the "
        "classes in label_names; auto: what all of the first rows have",
    )
    label_separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="between the labels of one row (multi_label only); null: |, of doccano #"
    )
    label_spellings: Literal["auto", "fold", "keep"] = Field(
        "auto",
        description="which spellings are one label. auto: 1 and 1.0, True and true, where all labels are such; fold: "
        "also texts that differ in case or white space; keep: none",
    )
    missing: tuple[Text, ...] | None = Field(
        None,
        description="label cells that stand for no label, such as NA; their rows are left out and counted; an empty "
        r"text stands for empty cells and nulls; null: \N, and - in a column gold_label",
    )
    untrained_labels: Literal["refuse", "keep"] = Field(
        "refuse", description="labels that validation or test has and train lacks: refuse the data, or keep them"
    )
    filter: dict[Text, Annotated[list[Text], BeforeValidator(as_list)]] = Field(
        default_factory=dict, description="column -> value or values; only rows that match every entry are used"
    )
    split: Split = Field(default_factory=Split, description="how rows are divided, unless the source gives the splits")
    cleaning: Cleaning = Field(default_factory=Cleaning, description="before tokenizing, here and in serving")
    max_length: Annotated[int, Field(ge=4, le=4096)] = Field(
        128, description="longest example in tokens, [CLS] and [SEP] included; what is longer is cut"
    )
    max_rejected_fraction: Fraction = Field(0.01, description="share of unusable rows above which preparation stops")
    duplicates: Duplicates = Field(default_factory=Duplicates, description="what happens to rows that occur again")
    augmentation: Augmentation | None = Field(None, description="of training rows; null: none")
    balance: Literal["none", "oversample"] = Field(
        "none",
        description="oversample: repeat training rows until every label has as many as the commonest (single_label); "
        "for weights instead, train.class_weights: balanced",
    )
    workers: PositiveInt | None = Field(
        None, description="processes that prepare; null: one per processor, or this one alone for little data"
    )
    runner: Literal["local", "DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"] = Field(
        "local", description="local: processes on this machine; else Apache Beam (pip install 'tfpipe[beam]')"
    )
    runner_options: tuple[Text, ...] = Field(
        (), description="Beam's own options, such as --direct_num_workers=2 or --project=NAME"
    )

    # No setting: `report.slices`, here so that every reader finds all columns that it reads in one section.
    _slice_columns: tuple[str, ...] = PrivateAttr(())

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Gives the columns of `report.slices`, which are read beside those that the settings of this section name."""
        return self._slice_columns

    def sliced_by(self, columns: tuple[str, ...]) -> Data:
        """Copies the section and lets it read these columns of `report.slices` too."""
        found = self.model_copy()
        found._slice_columns = columns
        return found

    @model_validator(mode="after")
    def _settings_of_formats(self) -> Data:
        for setting, formats in _OF_FORMATS.items():
            if getattr(self, setting) is not None and self.format not in formats:
                read = "data.format: lines" if formats == ("lines",) else f"the formats {', '.join(formats[1:])}"
                raise ValueError(
                    f"data.{setting} has no effect with data.format: {self.format}, only with {read}; set the format, "
                    "or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _patterns(self) -> Data:
        columns = []
        for setting in ("line", "file_name"):
            pattern = getattr(self, setting) or ""
            rest = re.sub(r"\{[^{}]+\}", "\0", pattern)
            if "\0\0" in rest or "{" in rest or "}" in rest:
                raise ValueError(
                    f"data.{setting} {pattern!r}: expected columns in braces with something between them, such as "
                    "'{label} {text}'"
                )
            columns += pattern_columns(pattern)
            if pattern and not columns:
                raise ValueError(f"data.{setting} {pattern!r} names no column; expected one such as {{label}}")
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice is not None:
            raise ValueError(f"data.line and data.file_name name the column {twice!r} twice; leave one of them out")
        return self

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Data:
        if isinstance(self.source, dict):
            if "train" not in self.source:
                raise ValueError("data.source gives splits but no train; add it")
            for name in ("column", "folds", "group_column"):
                if getattr(self.split, name) is not None:
                    raise ValueError(f"data.source gives the splits, so data.split.{name} has no effect; leave it out")
        self._check_delimited()
        texts = (self.text_column,) if self.text is None else parse_template(self.text).columns
        labels = (self.label_column,) if isinstance(self.label_column, str) else self.label_column
        if both := set(labels) & {*texts, self.text_pair_column}:
            raise ValueError(
                f"data.label_column {both.pop()!r} is a column of the text too; name the column of the labels"
            )
        if not isinstance(self.label_column, str):
            if not self.label_column or len(set(self.label_column)) < len(self.label_column):
                raise ValueError("data.label_column lists no column, or one column twice; list each column once")
            for name in ("label_form", "label_separator", "label_spellings"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"data.{name} has no effect on several label columns; leave it out")
        if self.label_form in ("list", "multi_hot") and self.label_separator is not None:
            raise ValueError(f"data.label_separator has no effect with label_form: {self.label_form}; leave it out")
        if self.text is not None and self.text_column != type(self).model_fields["text_column"].default:
            raise ValueError("data.text is the text, so data.text_column has no effect; leave one of them out")
        if self.runner_options and self.runner == "local":
            raise ValueError("data.runner_options has no effect with data.runner: local; leave it out")
        if self.runner not in ("local", "DirectRunner") and self.duplicates.near is not False:
            raise ValueError(
                f"data.runner: {self.runner} does not look for near duplicates, as their index lies on this machine; "
                "set data.duplicates.near: false"
            )
        if self.workers is not None and self.runner != "local":
            raise ValueError(f"data.workers has no effect with data.runner: {self.runner}; set it in runner_options")
        return self

    def _check_delimited(self) -> None:
        """Checks the settings of files that hold columns between separators."""
        for name in ("separator", "columns", "quoting", "escape"):
            if getattr(self, name) is not None and self.format not in ("auto", *TOOLS, "csv", "tsv"):
                raise ValueError(f"data.{name} has no effect with data.format: {self.format}; leave it out")
        if self.columns is None:
            return
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"data.columns names {twice!r} twice; give each column a name of its own")
