"""The section `data` of a configuration: where the rows come from and how they become examples."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

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


class Split(Section):
    """Who trains, who chooses, who is only reported: by a hash of a row's content, whatever the order of the rows."""

    train: Fraction = Field(0.8, description="share of the rows that train")
    validation: Fraction = Field(0.1, description="share that chooses the best checkpoint and checks the budget")
    test: Fraction = Field(0.1, description="share that is only ever reported")
    column: str | None = Field(
        None, description="column that names each row's split: train, validation (or valid, dev) or test; null: none"
    )
    group_column: str | None = Field(
        None, description="column whose equal values stay in one split, such as a user or a document; null: none"
    )
    stratified: bool = Field(
        False, description="true: each label has the given shares exactly, but new rows may move old ones at a border"
    )
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None,
        description="k-fold: fold `fold` of so many is the test split, whatever `test` says; null: no folds",
    )
    fold: Annotated[int, Field(ge=0)] = Field(0, description="which of the folds is the test split")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:g}; change one of the three")
        if not (self.train and self.validation and self.test):
            raise ValueError("each of train, validation and test must be above 0: all three are needed")
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Split:
        if self.column is not None and (self.folds is not None or self.group_column is not None):
            other = "folds" if self.folds is not None else "group_column"
            raise ValueError(f"column gives the splits, so {other} has no effect; leave one of them out")
        if self.stratified and self.group_column is not None:
            raise ValueError("stratified splits can't keep groups together; leave out stratified or group_column")
        if self.stratified and self.folds is not None:
            raise ValueError("folds are made by hash alone; leave out stratified or folds")
        if self.folds is None and self.fold:
            raise ValueError(f"fold {self.fold} has no effect without folds; set folds")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}: folds count from 0; set fold below folds")
        return self


class Cleaning(Section):
    """What becomes of a text before its word pieces are looked up, in preparation and in serving alike.

    The tokenizer itself drops control characters and takes every white space as a space, as transformers does.
    """

    html: bool = Field(
        False,
        description="<br> and <br /> become a space; &amp; &lt; &gt; &quot; &apos; &#39; &nbsp; what they stand for",
    )
    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
        None, description="Unicode normal form; the KC and KD forms fold ligatures, full-width letters, fractions"
    )
    lower_case: bool = Field(False, description="lower-case the text of a cased vocabulary; an uncased one does anyway")
    stop_words: Literal["english"] | tuple[Text, ...] = Field(
        (), description="words to leave out, whatever their case; english: scikit-learn's list"
    )


class Duplicates(Section):
    """Rows that occur more than once. Identical training rows are always reduced to the first."""

    across_splits: Literal["remove", "keep", "refuse"] = Field(
        "remove",
        description="a row whose text is also in a held-out split (test before validation before train): remove "
        "it, keep it and say so, or refuse the data",
    )
    near: bool | Literal["auto"] = Field(
        "auto", description="look for nearly equal texts across splits too; auto: up to a million rows"
    )
    near_similarity: Annotated[float, Field(ge=0.5, le=1.0)] = Field(
        0.8, description="Jaccard similarity of the texts' 8-byte pieces from which two rows are nearly equal"
    )

    @model_validator(mode="after")
    def _similarity_has_an_effect(self) -> Duplicates:
        if self.near is False and self.near_similarity != type(self).model_fields["near_similarity"].default:
            raise ValueError("near_similarity has no effect with near: false; leave it out")
        return self


class Augmentation(Section):
    """Altered copies of training rows, made after the split; each points to the row it came from."""

    copies: Annotated[int, Field(ge=1, le=100)] = Field(1, description="altered copies of each training row")
    synonyms: Fraction = Field(0.0, description="probability that a word becomes a synonym (WordNet)")
    swap: Fraction = Field(0.0, description="probability that a word changes places with another")
    deletion: Fraction = Field(0.0, description="probability that a word is left out; one word is always left")
    wordnet: str = Field(
        "/usr/share/wordnet", description="directory of WordNet's files; Debian's and Ubuntu's package: wordnet-base"
    )

    @model_validator(mode="after")
    def _something_changes(self) -> Augmentation:
        if not (self.synonyms or self.swap or self.deletion):
            raise ValueError("synonyms, swap and deletion are all 0, so copies would be the same; set one of them")
        if not self.synonyms and self.wordnet != type(self).model_fields["wordnet"].default:
            raise ValueError("wordnet has no effect without synonyms; leave it out, or set synonyms")
        return self


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
    """Where the rows come from and how they become examples."""

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
        "null: true, but as its lines show in a file separated by tabs, and quotes around whole rows are not believed",
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
