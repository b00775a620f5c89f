"""Sections of `data` about rows: how they are split, cleaned, compared and altered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfpipe.config.types import Fraction, Section, Text


class Split(Section):
    """The split into rows that train, choose, or are only reported: by a hash of a row's content, in any order."""

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
    """The changes to a text before its word pieces are looked up, in preparation and in serving alike.

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
