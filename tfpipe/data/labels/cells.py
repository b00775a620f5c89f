"""Label cells: the labels that a cell of the label column, or of several such columns, gives its row.

Enters: a cell as a reader found it. Leaves: its labels as the file spells them, or why there are none. All rows are
read in one form, which `form.py` chooses:

    plain      a label; of a multi-label row several, with `data.label_separator` between them
    list       a list of labels (see `lists.py`); of a single-label row a list of one
    multi_hot  a vector of zeros and ones, one for each of the classes that `data.label_names` lists
    columns    several columns of zeros and ones, each named like its class

A cell that is a list in the file already, as in JSON and Parquet, is a list in every form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tfpipe.data.block import as_text, excerpt, is_null
from tfpipe.data.labels.lists import CHOICES, listed
from tfpipe.data.texts import reason_of_nested

UNLABELED = "not labeled"
"""reason of a row that is left out and counted, and not rejected"""
EMPTY = "empty label"
NULL = "no label (null); a row that has none of the labels has an empty list or an empty text"
WITHOUT_LABEL = frozenset({UNLABELED, EMPTY, NULL})
ON = frozenset({"1", "1.0", "true", "t", "yes", "y"})
OFF = frozenset({"0", "0.0", "false", "f", "no", "n"})
_NO_ANSWER = "-1"


class LabelCell(NamedTuple):
    """The content of a cell."""

    values: tuple[str, ...]
    """labels as the file spells them"""
    reason: str | None
    """why the row can't be used"""


@dataclass(frozen=True)
class LabelForm:
    """The form of the label cells."""

    kind: Literal["plain", "list", "multi_hot", "columns"]
    column: str
    """the label column, for messages"""
    one_label: bool
    separator: str | None
    """between the labels of a plain cell; None: a cell is one label"""
    names: tuple[str, ...]
    """classes of a vector's positions, or the columns"""
    missing: frozenset[str]
    """texts that stand for no label"""
    null_is_missing: bool
    """whether a null stands for no label"""
    bare: bool = True
    """whether a text that is no list is a label, where the form is list"""
    own_lists: bool = False
    """whether the first cells are lists in the file, so that no label is several joined in a text"""

    def read(self, cells: Iterable[Any]) -> list[LabelCell]:
        """Reads the cells of some rows; of several columns, a cell is a tuple with the value of each."""
        found, known = [], {}
        for cell in cells:
            if type(cell) is not str:
                found.append(self._read(cell))
                continue
            read = known.get(cell)
            if read is None:
                read = known[cell] = self._read(cell)
            found.append(read)
        return found

    def _read(self, cell: Any) -> LabelCell:
        if self.kind == "columns":
            return self._checked(self._switches([as_text(each) for each in cell]))
        if isinstance(cell, dict) and set(cell) == {CHOICES}:
            cell = cell[CHOICES]
        if isinstance(cell, dict):
            return _without(reason_of_nested(cell, "label", "data.label_column", self.column))
        if isinstance(cell, bytes):
            return _without("the label is not text or a number but bytes")
        if isinstance(cell, list | tuple) and not cell and self.one_label and self.null_is_missing:
            return _without(UNLABELED)
        if isinstance(cell, list | tuple):
            return self._checked(self._list(cell))
        text = as_text(cell)
        if text in self.missing or (self.null_is_missing and is_null(cell)):
            return _without(UNLABELED)
        # Of an empty text alone a multi-label row has none of the labels: a tool that writes lists writes [] for that.
        if not text and (self.one_label or self.kind != "plain" or is_null(cell)):
            return _without(EMPTY if self.one_label else NULL)
        return self._checked(self._plain(text) if self.kind == "plain" else self._written_list(text))

    def _plain(self, text: str) -> LabelCell:
        if self.separator is None:
            return LabelCell((text,), None)
        parts = (part.strip() for part in text.split(self.separator))
        return self._present(tuple(part for part in parts if part))

    def _written_list(self, text: str) -> LabelCell:
        elements = listed(text)
        if elements is not None:
            return self._list(elements)
        if self.kind == "multi_hot":
            return _without(f"label {excerpt(text)!r} is not a vector of {len(self.names)} zeros and ones")
        if looks_like_list(text):
            return _without(f"label {excerpt(text)!r} looks like a list that tfpipe can't read")
        if not self.bare:
            return _without(f"label {excerpt(text)!r} is no list, as the first are (data.label_form: list takes it)")
        return LabelCell((text,), None)  # Label Studio writes one choice as a bare word

    def _list(self, elements: Sequence[Any]) -> LabelCell:
        if any(map(is_null, elements)):
            return _without("a label in the list is null")
        if any(isinstance(each, bytes | dict | list | tuple) for each in elements):
            return _without("a label in the list is not text or a number")
        values = [as_text(each) for each in elements]
        if self.kind == "multi_hot":
            return self._switches(values)
        return self._present(tuple(values)) if all(values) else _without("a label in the list is empty")

    def _present(self, values: tuple[str, ...]) -> LabelCell:
        none = next((value for value in values if value in self.missing), None)
        if none is not None and len(values) > 1:
            return _without(f"{excerpt(none)!r}, which stands for no label (data.missing), beside another label")
        return LabelCell(values, None) if none is None else _without(UNLABELED)

    def _switches(self, values: list[str]) -> LabelCell:
        """Names the classes whose place in a vector, or whose column, holds a one."""
        if self.kind == "columns" and len(set(values)) == 1 and values[0] in self.missing | {_NO_ANSWER}:
            return _without(UNLABELED)
        if len(values) != len(self.names):
            return _without(f"a vector of {len(values)} numbers (expected {len(self.names)} zeros and ones)")
        on = []
        for name, value in zip(self.names, values, strict=True):
            if value.lower() in ON:
                on.append(name)
            elif value.lower() not in OFF:
                where = f"column {name!r}" if self.kind == "columns" else "the vector"
                return _without(f"{where} holds {excerpt(value)!r} (expected 0 or 1)")
        return LabelCell(tuple(on), None)

    def _checked(self, cell: LabelCell) -> LabelCell:
        values, reason = cell
        if reason is not None:
            return cell
        if len(values) > 1 and len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            return _without(f"label {excerpt(twice)!r} stands twice in one row")
        if self.one_label and len(values) != 1:
            return _without(f"{len(values)} labels (task: single_label expects one)")
        return cell


def looks_like_list(text: str) -> bool:
    """Tells whether a text begins and ends like a list of some programming language."""
    return text.startswith(("[", "{", "<", "('", '("', "array(")) and text.endswith(("]", "}", ">", ")"))


def _without(reason: str) -> LabelCell:
    return LabelCell((), reason)
