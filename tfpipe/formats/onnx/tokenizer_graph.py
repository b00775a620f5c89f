"""BERT's tokenizer as an ONNX graph of integers: texts go in, and token ids equal to transformers' come out.

Enters: tokenizer settings. Leaves: nodes that make `input_ids`, `attention_mask` and `token_type_ids` of texts:

    texts -> characters and special tokens -> symbols of all texts in one row -> the longest piece at each place ->
    the pieces of each word -> cut, [CLS], [SEP]

ONNX has no operator that cuts a text into characters. ONNX Runtime has one of its own, com.microsoft's Tokenizer. All
other operators are ONNX's, so no library of custom operators is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.encoders.vocabulary import MAX_WORD_CHARS
from tfpipe.formats.onnx.tokenizer_tables import NOTHING, NOWHERE, WORD_END, WORD_REST, WORD_START, Tables, tables_of
from tfpipe.tokens.tokenizer import Tokenizer

_ML, _RUNTIME = "ai.onnx.ml", "com.microsoft"
_SCOPE = "tokenizer"


def put_tokenizer_before(model: onnx.ModelProto, tokenizer: Tokenizer, *, pairs: bool) -> None:
    """Turns a model of token ids into one of texts, in its place.

    Args:
      model: takes `input_ids, attention_mask, token_type_ids` [batch, length] int64.
      tokenizer: text -> token ids, without cleaning.
      pairs: whether texts come in pairs.
    """
    nodes = _Nodes(_SCOPE)
    columns = ("text", "text_pair") if pairs else ("text",)
    tables = tables_of(tokenizer.settings)
    ids = tables.special_ids
    symbols, rows, row_starts = _symbols(nodes, tables, _stacked(nodes, columns))
    tokens = _Tokens(nodes, *_pieces(nodes, tables, symbols, ids["unk_token"]), rows, row_starts)
    _assemble(nodes, tokens, ids, tokenizer.max_length, pairs=pairs)
    graph = model.graph
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"]) for name in columns)
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.nodes, *own])
    graph.initializer.extend(nodes.initializers)
    graph.value_info.extend(nodes.types)
    versions = {each.domain: each.version for each in model.opset_import} | {_ML: 2, _RUNTIME: 1}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in versions.items())


class _Nodes:
    """Nodes and constants of a graph, or of a loop's body in it."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.types: list[onnx.ValueInfoProto] = []
        """of outputs that onnx knows no type of"""

    def __call__(self, operator: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """Adds a node of names of tensors, and numbers or arrays, which become constants; returns its output's name."""
        name = f"{self.scope}/{len(self.nodes)}.{operator}"
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(operator, names, [output or name], name=name, **attributes))
        return output or name

    def constant(self, value: Any) -> str:
        """Adds a constant: of integers int64."""
        value = np.asarray(value)
        kind = value.dtype if value.dtype.kind in "bO" else np.int64
        name = f"{self.scope}/constant.{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value.astype(kind), name))
        return name

    def loop(self, body: _Nodes, carried: dict[str, tuple[str, str]], go_on: str, kind: dict[str, int]) -> list[str]:
        """Adds a loop that ends when `go_on`, [] bool, is false; returns the names of the values at its end.

        Args:
          body: its nodes.
          carried: name in the body -> name before the loop, name at the end of a turn; each [length].
          go_on: of the body.
          kind: name in the body -> type, where that is not int64.
        """
        info = helper.make_tensor_value_info
        kinds = {name: kind.get(name, TensorProto.INT64) for name in carried}
        inputs = [info(f"{body.scope}/turn", TensorProto.INT64, []), info(f"{body.scope}/go_on", TensorProto.BOOL, [])]
        inputs += [info(name, kinds[name], [None]) for name in carried]
        outputs = [info(go_on, TensorProto.BOOL, [])]
        outputs += [info(after, kinds[name], [None]) for name, (_, after) in carried.items()]
        graph = helper.make_graph(body.nodes, body.scope, inputs, outputs, body.initializers)
        results = [f"{name}.end" for name in carried]
        before = [before for before, _ in carried.values()]
        self.nodes.append(
            helper.make_node("Loop", ["", self.constant(True), *before], results, name=body.scope, body=graph)
        )
        return results

    def flat(self, name: str) -> str:
        """Reshapes a tensor to [length]."""
        return self("Reshape", name, [-1])

    def places(self, chosen: str) -> str:
        """Finds where a [length] bool is true."""
        return self.flat(self("NonZero", chosen))

    def count(self, chosen: str) -> str:
        """Casts a bool to 0 or 1."""
        return self("Cast", chosen, to=TensorProto.INT64)

    def before(self, counts: str) -> str:
        """Sums the values before each place of a [length]."""
        return self("CumSum", counts, 0, exclusive=1)

    def part(self, name: str, start: Any, stop: Any) -> str:
        """Cuts the places from `start` to before `stop`, [1] each, out of a [length]."""
        return self("Slice", name, start, stop, [0])


def _stacked(nodes: _Nodes, columns: tuple[str, ...]) -> str:
    """Stacks all texts, and one more: with it there is a text, a character and a word in any batch."""
    first, *others = columns
    equally_long = [nodes("Reshape", name, nodes("Shape", first), allowzero=1) for name in others]
    return nodes("Concat", first, *equally_long, np.array(["a"], object), axis=0)


def _symbols(nodes: _Nodes, tables: Tables, texts: str) -> tuple[str, str, str]:
    """Finds the symbols of all texts [symbols], the row of each [symbols], where each row starts [rows].

    A row ends a word.
    """
    characters = nodes("Tokenizer", texts, domain=_RUNTIME, mark=0, mincharnum=1, pad_value="", tokenexp=tables.pattern)
    # Or onnx's checker would look for the type of what LabelEncoder reads, and find none.
    nodes.types.append(helper.make_tensor_value_info(characters, TensorProto.STRING, [None, None]))
    spelling = nodes(
        "LabelEncoder",
        characters,
        domain=_ML,
        keys_strings=list(tables.spellings),
        values_int64s=list(tables.spellings.values()),
        default_int64=0,
    )
    symbols = nodes("Flatten", nodes("Gather", tables.symbols, spelling), axis=1)
    symbols = nodes("Pad", symbols, [0, 0, 0, 1], WORD_END)
    kept = nodes("Greater", symbols, NOTHING)
    row_starts = nodes.before(nodes("ReduceSum", nodes.count(kept), [1], keepdims=0))
    rows = nodes("Gather", nodes("NonZero", kept), 0)
    return nodes("Compress", symbols, nodes.flat(kept)), rows, row_starts


def _pieces(nodes: _Nodes, tables: Tables, symbols: str, unknown_id: int) -> tuple[str, str]:
    """Tells where a token starts, [symbols] bool, and its id, [symbols]."""
    ends_word = nodes("Equal", symbols, WORD_END)
    letters = nodes("Not", ends_word)
    starts = nodes("And", letters, nodes("Concat", [True], nodes.part(ends_word, [0], [-1]), axis=0))
    ends = nodes("And", letters, nodes("Concat", nodes.part(ends_word, [1], [2**62]), [True], axis=0))
    lengths, ids = _longest_pieces(nodes, tables, symbols, starts)
    first, last = nodes.places(starts), nodes.places(ends)
    stopped, reached = _chains(nodes, lengths, first)
    too_long = nodes("Greater", nodes("Sub", last, first), MAX_WORD_CHARS - 1)
    unknown_words = nodes("Or", too_long, nodes("Not", nodes("Gather", ends_word, stopped)))
    word = nodes("Sub", nodes("CumSum", nodes.count(starts), 0), 1)
    unknown = nodes("Gather", unknown_words, word)
    later = nodes("And", nodes("Not", unknown), nodes("Greater", lengths, 0))
    return nodes("And", reached, nodes("Or", starts, later)), nodes("Where", unknown, unknown_id, ids)


def _longest_pieces(nodes: _Nodes, tables: Tables, symbols: str, starts: str) -> tuple[str, str]:
    """Finds the longest piece at each place, in symbols (0: none), and its id."""
    count = nodes("Shape", symbols)
    places = nodes("Range", 0, nodes("Squeeze", count), 1)
    last = nodes("Sub", count, 1)  # the end of a word: whoever looks there has no next state
    body = _Nodes(f"{_SCOPE}/longest")
    state, length, piece = (f"{body.scope}/{name}" for name in ("state", "length", "piece"))
    turn = f"{body.scope}/turn"
    symbol = body("Gather", symbols, body("Min", body("Add", places, turn), last))
    next_state = body(
        "LabelEncoder",
        body("Add", body("Mul", state, tables.alphabet), symbol),
        domain=_ML,
        keys_int64s=list(tables.edges),
        values_int64s=list(tables.edges.values()),
        default_int64=NOWHERE,
    )
    found = body("Gather", tables.pieces, next_state)
    ends_here = body("Not", body("Less", found, 0))
    longer = body("Where", ends_here, body("Add", turn, 1), length)
    best = body("Where", ends_here, found, piece)
    go_on = body("Greater", body("ReduceMax", next_state, keepdims=0), NOWHERE)
    none = nodes("Mul", symbols, 0)
    before = nodes("Where", starts, WORD_START, WORD_REST)
    carried = {state: (before, next_state), length: (none, longer), piece: (none, best)}
    return tuple(nodes.loop(body, carried, go_on, {})[1:])


def _chains(nodes: _Nodes, lengths: str, first: str) -> tuple[str, str]:
    """Follows the pieces of each word: where no other piece fits [words], where pieces start [symbols] bool."""
    body = _Nodes(f"{_SCOPE}/chain")
    place, reached = (f"{body.scope}/{name}" for name in ("place", "reached"))
    length = body("Gather", lengths, place)
    here = body("ScatterElements", reached, place, body("Not", body("Less", length, 0)))
    go_on = body("Greater", body("ReduceMax", length, keepdims=0), 0)
    carried = {place: (first, body("Add", place, length)), reached: (nodes("Less", lengths, 0), here)}
    return tuple(nodes.loop(body, carried, go_on, {reached: TensorProto.BOOL}))


class _Tokens:
    """The tokens of all rows, one after the other."""

    def __init__(self, nodes: _Nodes, starts: str, ids: str, rows: str, row_starts: str) -> None:
        """Adds the nodes.

        Args:
          nodes: of the graph.
          starts: where a token starts, [symbols] bool.
          ids: of the token that starts there, [symbols].
          rows: of each symbol, [symbols].
          row_starts: where each row starts among the symbols, [rows].
        """
        counted = nodes.count(starts)
        before, places = nodes.before(counted), nodes.places(starts)
        first = nodes("Gather", before, row_starts)
        whole = nodes("ReduceSum", counted, keepdims=1)
        self.counts = nodes("Sub", nodes("Concat", nodes.part(first, [1], [2**62]), whole, axis=0), first)
        """tokens of each row"""
        self.ids, self.rows = nodes("Gather", ids, places), nodes("Gather", rows, places)
        self.ranks = nodes("Sub", nodes("Gather", before, places), nodes("Gather", first, self.rows))
        """which token of its row each is"""


def _assemble(nodes: _Nodes, tokens: _Tokens, special: dict[str, int], max_length: int, *, pairs: bool) -> None:
    """Cuts the tokens of each text, and puts [CLS] and [SEP] around them: the three inputs of the encoder."""
    batch = nodes("Shape", "text")
    examples = nodes("Range", 0, nodes("Squeeze", batch), 1)
    first = nodes.part(tokens.counts, [0], batch)
    if pairs:
        second = nodes.part(tokens.counts, batch, nodes("Mul", batch, 2))
        first, second = _longest_first(nodes, first, second, max_length - 3)
        limits, lengths = [first, second], nodes("Add", nodes("Add", first, second), 3)
        columns, numbers = [nodes("Add", nodes("Mul", first, 0), 1), nodes("Add", first, 2)], [examples] * 2
    else:
        first = nodes("Min", first, max_length - 2)
        limits, lengths = [first], nodes("Add", first, 2)
        columns, numbers = [nodes("Add", nodes("Mul", first, 0), 1)], [examples]

    def of_token(values: list[str]) -> str:  # the last row is the text that no one gave
        return nodes("Gather", nodes("Concat", *values, [0], axis=0), tokens.rows)

    longest = nodes("ReduceMax", nodes("Concat", lengths, [2], axis=0), keepdims=1)
    place = nodes("Add", nodes("Add", of_token(columns), tokens.ranks), nodes("Mul", of_token(numbers), longest))
    kept = nodes("Less", tokens.ranks, of_token(limits))
    blank = nodes("Expand", special["pad_token"], nodes("Mul", batch, longest))
    ids = nodes("ScatterElements", blank, nodes("Compress", place, kept), nodes("Compress", tokens.ids, kept))
    ids = nodes("Reshape", ids, nodes("Concat", batch, longest, axis=0), allowzero=1)
    column = nodes("Range", 0, nodes("Squeeze", longest), 1)
    end, whole = (nodes("Unsqueeze", each, [1]) for each in (nodes("Add", first, 1), lengths))
    inside = nodes("Less", column, whole)
    ids = nodes("Where", nodes("Equal", column, 0), special["cls_token"], ids)
    ids = nodes("Where", nodes("Equal", column, end), special["sep_token"], ids)
    is_end = nodes("Equal", column, nodes("Sub", whole, 1))
    input_ids, attention_mask, token_type_ids = INFERENCE_INPUTS
    nodes("Where", is_end, special["sep_token"], ids, output=input_ids)
    nodes("Cast", inside, to=TensorProto.INT64, output=attention_mask)
    behind = nodes("Greater", column, end) if pairs else nodes("Less", column, 0)
    nodes("Cast", nodes("And", inside, behind), to=TensorProto.INT64, output=token_type_ids)


def _longest_first(nodes: _Nodes, first: str, second: str, room: int) -> tuple[str, str]:
    """Computes the lengths to which a pair is cut, as `tokens/tokenizer.py` does."""
    shorter = nodes("Min", nodes("Min", first, second), room // 2)
    longer = nodes("Min", nodes("Max", first, second), nodes("Sub", room, shorter))
    swap = nodes("Greater", first, second)
    return nodes("Where", swap, longer, shorter), nodes("Where", swap, shorter, longer)
