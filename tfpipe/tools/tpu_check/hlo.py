"""The traffic of an optimized, scheduled TPU program with its main memory (HBM), counted from the text of its HLO.

Enters: the text of a compiled module. Leaves: bytes. XLA's own counter, `bytes accessed`, charges each instruction all
its operands and results in any memory, and an asynchronous slice its whole operand. On a chip whose compiler keeps much
in on-chip memory (VMEM), that is far more than HBM has to move. This module counts, instruction by instruction of the
scheduled entry computation:

- operands and results that live in HBM (memory space 0), once each, in the size that they take there: the two minor
  dimensions are padded to the tiles of the layout. Values elsewhere (`S(1)` VMEM, `S(2)`, `S(6)` scalars and
  semaphores, `S(5)` the host) are not counted.
- a copy between memories: its source where that is HBM, its target where that is HBM. Asynchronous ones are counted
  where they start. An asynchronous slice moves its result, not its whole operand.
- a fusion: as one instruction, its inside is never in HBM. An operand of which the inside only slices or gathers is
  read as far as that goes; a result that is an operand updated in place (`dynamic-update-slice`, `scatter`) is read and
  written as far as the update goes.
- slices and gathers outside a fusion: their result, read and written; updates in place: the update, read, and the part
  that it covers, read and written.
- loops: their body and condition, as often as the compiler knows them to run, else once (`unknown_loops` counts
  those); calls and asynchronous computations: their inside; a conditional: its larger branch.
- free: parameters, constants, tuples and their elements, bitcasts, ends of asynchronous operations, and custom calls
  that only rename memory.

The count is therefore a lower bound of the memory traffic of this very program: an operand that a product has to read
more than once counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ITEM_BITS = {"pred": 8, "token": 0, "c64": 64, "c128": 128}  # else the number in the name
_FREE = frozenset({
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency", "domain",
    "optimization-barrier", "partition-id", "replica-id", "copy-done", "slice-done", "async-done", "async-update",
    "send-done", "recv-done", "all-reduce-done", "all-gather-done", "collective-permute-done",
})  # fmt: skip
_FREE_CALLS = frozenset({"ConcatBitcast", "SliceBitcast", "AssumeGatherIndicesInBound", "AllocateBuffer"})
_TAKES_A_PART = frozenset({"slice", "dynamic-slice", "gather"})
_UPDATES_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}
"""opcode -> which operand is the update"""

_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_CALLED = re.compile(r"(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"?known_trip_count"?:?=?\{"?n"?:"?(\d+)"?\}')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclass(frozen=True)
class Buffer:
    """An array of an instruction's result."""

    size_bytes: int
    """with the padding of its layout"""
    space: int
    """memory space: 0 is HBM, 1 VMEM"""

    @property
    def hbm_bytes(self) -> int:
        """Gives its size where it lives in HBM, else 0."""
        return self.size_bytes if self.space == 0 else 0


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    result: tuple[Buffer, ...]
    """the arrays of the result, those of a tuple one after the other"""
    operands: tuple[str, ...]
    rest: str = field(repr=False)
    """attributes, as text"""
    is_root: bool

    @property
    def called(self) -> dict[str, str]:
        """Lists the computations that it names: attribute -> computation."""
        return dict(_CALLED.findall(self.rest))


@dataclass
class Traffic:
    """The bytes that one run of a program, or of a part of it, moves."""

    hbm_bytes: int = 0
    unknown_loops: int = 0
    """loops counted once, as the compiler doesn't know how often they run"""
    estimated_cycles: int = 0
    """the compiler's own estimate, where it made one, over all instructions one after the other"""

    def add(self, other: Traffic, times: int = 1) -> None:
        """Adds another traffic, so many times."""
        self.hbm_bytes += times * other.hbm_bytes
        self.unknown_loops += other.unknown_loops
        self.estimated_cycles += times * other.estimated_cycles


class Module:
    """The computations of an HLO text."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                current[found[2]] = _parse(found[2], found[3], is_root=found[1] is not None)
        if not self.entry:
            raise ValueError("not the text of an HLO module: it has no ENTRY computation")

    def traffic(self) -> Traffic:
        """Counts the traffic of one run of the module."""
        return self._of_computation(self.entry)

    def largest(self, count: int) -> list[tuple[int, Instruction]]:
        """Lists the instructions of the entry computation that move most: (bytes of HBM, instruction)."""
        instructions = self.computations[self.entry]
        moved = [(self._of(each, instructions).hbm_bytes, each) for each in instructions.values()]
        return sorted(moved, key=lambda pair: -pair[0])[:count]

    def _of_computation(self, name: str) -> Traffic:
        total, instructions = Traffic(), self.computations[name]
        for instruction in instructions.values():
            total.add(self._of(instruction, instructions))
        return total

    def _of(self, instruction: Instruction, instructions: dict[str, Instruction]) -> Traffic:
        """Counts the traffic of one instruction among those of its computation."""
        opcode, called = instruction.opcode, instruction.called
        if opcode in _FREE or (opcode == "custom-call" and _target(instruction) in _FREE_CALLS):
            return Traffic()
        total = Traffic(estimated_cycles=_cycles(instruction))
        if opcode == "while":
            trips = _TRIPS.search(instruction.rest)
            for part in (called["body"], called["condition"]):
                total.add(self._of_computation(part), int(trips[1]) if trips else 1)
            total.unknown_loops += trips is None
        elif opcode == "conditional":
            branches = _BRANCHES.search(instruction.rest)
            names = re.findall(r"[\w.\-]+", branches[1]) if branches else list(called.values())
            total.add(max((self._of_computation(name) for name in names), key=lambda each: each.hbm_bytes))
        elif opcode == "call":
            total.add(self._of_computation(called["to_apply"]))
        elif opcode == "async-start":
            total.add(self._of_computation(called["calls"]))
        else:
            total.hbm_bytes += self._moved(instruction, instructions)
        return total

    def _moved(self, instruction: Instruction, instructions: dict[str, Instruction]) -> int:
        opcode = instruction.opcode
        operands = [instructions[name].result if name in instructions else () for name in instruction.operands]
        if opcode == "copy-start":  # (target, source, semaphore)
            return sum(each.hbm_bytes for each in instruction.result[:2])
        if opcode == "slice-start":  # ((source), target, semaphore)
            source, target = instruction.result[:2]
            return target.hbm_bytes + (target.size_bytes if source.space == 0 else 0)
        if opcode.endswith("-start"):  # a collective: (operand, result, …)
            return sum(map(_hbm, operands)) + _hbm(instruction.result[1:2])
        if opcode == "fusion":
            return self._moved_by_fusion(instruction, operands)
        if opcode in _TAKES_A_PART:
            taken = sum(each.size_bytes for each in instruction.result)
            return _part(operands[0], taken) + sum(map(_hbm, operands[1:])) + _hbm(instruction.result)
        if opcode in _UPDATES_IN_PLACE:
            update = operands[_UPDATES_IN_PLACE[opcode]]
            covered = _part(instruction.result, sum(each.size_bytes for each in update))
            return 2 * covered + sum(map(_hbm, operands[1:]))
        return sum(map(_hbm, operands)) + _hbm(instruction.result)

    def _moved_by_fusion(self, instruction: Instruction, operands: list[tuple[Buffer, ...]]) -> int:
        inside = self.computations[instruction.called["calls"]]
        users: dict[str, list[Instruction]] = {}
        for each in inside.values():
            for name in each.operands:
                users.setdefault(name, []).append(each)
        parameters = {}
        for each in inside.values():
            if each.opcode == "parameter":
                parameters[int(re.match(r"\((\d+)\)", each.rest)[1])] = each
        updated = dict(_updates(inside))
        moved = 0
        for number, buffers in enumerate(operands):
            if number in parameters and parameters[number].name not in updated:
                part = _bytes_taken(parameters[number], users)
                moved += _hbm(buffers) if part is None else _part(buffers, part)
        results = _results(inside)
        in_place = dict(updated.values())
        for buffer, root in zip(instruction.result, results, strict=False):
            moved += 2 * _part((buffer,), in_place[root]) if root in in_place else buffer.hbm_bytes
        return moved


def _updates(inside: dict[str, Instruction]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yields each parameter that a fusion updates in place -> (the result that it becomes, bytes of the update)."""
    for root in _results(inside):
        instruction = _behind_names(root, inside)
        if instruction.opcode in _UPDATES_IN_PLACE:
            target = _behind_names(instruction.operands[0], inside)
            update = inside[instruction.operands[_UPDATES_IN_PLACE[instruction.opcode]]]
            if target.opcode == "parameter":
                yield target.name, (root, sum(each.size_bytes for each in update.result))


def _results(inside: dict[str, Instruction]) -> tuple[str, ...]:
    (root,) = (each for each in inside.values() if each.is_root)
    return root.operands if root.opcode == "tuple" else (root.name,)


def _behind_names(name: str, inside: dict[str, Instruction]) -> Instruction:
    """Finds the instruction that makes a value, behind bitcasts."""
    instruction = inside[name]
    while instruction.opcode == "bitcast":
        instruction = inside[instruction.operands[0]]
    return instruction


def _bytes_taken(value: Instruction, users: dict[str, list[Instruction]]) -> int | None:
    """Counts the bytes that slices and gathers take of a value; None where anything else reads it too."""
    taken = 0
    for user in users.get(value.name, []):
        if user.opcode == "bitcast":
            part = _bytes_taken(user, users)
            if part is None:
                return None
            taken += part
        elif user.opcode in _TAKES_A_PART and user.operands[0] == value.name and value.name not in user.operands[1:]:
            taken += sum(each.size_bytes for each in user.result)
        else:
            return None
    return taken


def _part(buffers: tuple[Buffer, ...], size_bytes: int) -> int:
    """Returns so many bytes of a value, or all of it where it has less; 0 where it does not live in HBM."""
    return min(_hbm(buffers), size_bytes)


def _hbm(buffers: tuple[Buffer, ...]) -> int:
    return sum(each.hbm_bytes for each in buffers)


def _target(instruction: Instruction) -> str:
    found = _TARGET.search(instruction.rest)
    return found[1] if found else ""


def _cycles(instruction: Instruction) -> int:
    found = _CYCLES.search(instruction.rest)
    return int(found[1]) if found else 0


def _parse(name: str, text: str, is_root: bool) -> Instruction:
    """Parses `f32[2]{0} add(%a, %b), metadata=…` into an instruction."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode = rest[: rest.index("(")]
    close = _closing(rest, len(opcode))
    operands = rest[len(opcode) + 1 : close]
    named = () if opcode in ("parameter", "constant") else tuple(re.findall(r"%([\w.\-]+)", operands))
    attributes = rest[len(opcode) : close + 1] if opcode == "parameter" else rest[close + 1 :]
    return Instruction(name, opcode, tuple(_buffers(shape)), named, attributes, is_root)


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0 and text[position] == ")":
            return position
    raise ValueError(f"unbalanced brackets: {text[:120]}")


def _buffers(shape: str) -> Iterator[Buffer]:
    for kind, dimensions, order, layout in _ARRAY.findall(shape):
        sizes = [int(each.lstrip("<=")) for each in dimensions.split(",") if each]
        minor_to_major = [int(each) for each in order.split(",") if each] or list(range(len(sizes)))[::-1]
        physical = [sizes[index] for index in reversed(minor_to_major)]  # major first
        tile = re.search(r"T\(([\d,]+)\)", layout)
        for back, unit in enumerate(reversed([int(each) for each in tile[1].split(",")] if tile else []), start=1):
            if back <= len(physical):
                physical[-back] = -(-physical[-back] // unit) * unit
        count = 1
        for size in physical:
            count *= size
        space = re.search(r"S\((\d+)\)", layout)
        yield Buffer(count * _bits(kind) // 8, int(space[1]) if space else 0)


def _bits(kind: str) -> int:
    if kind in _ITEM_BITS:
        return _ITEM_BITS[kind]
    number = re.match(r"[a-z]+(\d+)", kind)
    return int(number[1]) if number else 0
