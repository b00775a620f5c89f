"""The meaning of a compiled step on TPU chips: whether it fits, the least time that it takes, and the table of it.

Enters: the compiler's facts about one replica's step (`compile.py`) and the topology. Leaves: times and rates, in the
roofline model (Williams et al., 2009): a step takes as long as its arithmetic at the chip's peak, or as its memory
traffic at HBM's peak, whichever is longer; then, added and not overlapped, the all-reduce of the gradients.

Memory traffic is counted twice. The traffic of HBM (`hlo.py`) gives a bound that no step can beat. XLA's own count
includes on-chip memory, and copies several times over: it is the cautious figure, and a step may do better. The third
time is the compiler's model of its own instructions, one after the other (a large product at 70 to 95 % of the peak, a
plain copy at half of HBM's): an expectation rather than a bound.

Peaks are Google's, https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, read in November 2026: bfloat16 products,
HBM bandwidth, and the interconnect, given as both directions of all ports of a chip together (v5e 400 GB/s over 4
ports, v6e 800 over 4, v5p 1,200 over 6), from which one direction of one link follows. For v4 that page has none; it is
6 links of 50 GB/s in Jouppi et al., "TPU v4: An Optically Reconfigurable Supercomputer", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tfpipe.errors import InputError

GIB = 2**30
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")


@dataclass(frozen=True)
class Chip:
    """Peaks of one chip; both TensorCores of those that have two."""

    flops_per_second: float
    """of bfloat16 products"""
    hbm_bytes_per_second: float
    usable_hbm_bytes: int
    """what libtpu 0.0.14 lets a program use, as it says when memory is short; the rest of HBM is the runtime's"""
    link_bytes_per_second: float
    """one direction of one link to a neighbor"""
    wraps: int
    """the size of a dimension from which, and from whose multiples, it is closed to a ring"""
    topologies: tuple[str, ...]
    """slices that are offered"""
    cycles_per_second: float
    """clock of a TensorCore: the peak over what its matrix units do in a cycle; of v6e, at 2**19 operations, which is
    what the compiler's estimates allow"""


CHIPS = {
    "v4": Chip(275e12, 1.23e12, round(30.75 * GIB), 50e9, 4, _SOLID, 1.05e9),
    "v5e": Chip(197e12, 0.82e12, round(15.75 * GIB), 50e9, 16, _FLAT, 1.50e9),
    "v5p": Chip(459e12, 2.76e12, round(95.74 * GIB), 100e9, 4, _SOLID, 1.75e9),
    "v6e": Chip(918e12, 1.64e12, round(31.25 * GIB), 100e9, 16, _FLAT, 1.75e9),
}


@dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod."""

    name: str
    chip_name: str
    sizes: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """Gives the peaks of its chips."""
        return CHIPS[self.chip_name]

    @property
    def chips(self) -> int:
        """Gives the number of its chips; each is one replica."""
        return math.prod(self.sizes)

    @property
    def fewest_links(self) -> int:
        """Gives the fewest links of a chip: one to each neighbor, fewer at an end that is not closed to a ring.

        v5e and v6e close a dimension of 16; v4 and v5p close all dimensions where all are multiples of 4.
        """
        if len(self.sizes) == 3 and any(size % self.chip.wraps for size in self.sizes):
            return sum(size > 1 for size in self.sizes)
        return sum((size > 1) + (size > 2 and size % self.chip.wraps == 0) for size in self.sizes)


def parse_topology(name: str) -> Topology:
    """Parses a topology such as `v5e:2x4`.

    Raises:
      InputError: no such topology is offered.
    """
    chip, _, shape = name.partition(":")
    if chip not in CHIPS:
        examples = ", ".join(f"{known}:{CHIPS[known].topologies[0]}" for known in CHIPS)
        raise InputError(
            f"--topology {name}: expected CHIP:SHAPE with a chip of {', '.join(CHIPS)}, such as {examples}"
        )
    if shape not in CHIPS[chip].topologies:
        raise InputError(f"--topology {name}: {chip} comes as {', '.join(CHIPS[chip].topologies)}")
    return Topology(name, chip, tuple(int(size) for size in shape.split("x")))


def needed_hbm_bytes(memory: dict[str, int]) -> int:
    """Counts the HBM that a program takes while it runs: arguments, outputs that do not replace them, the rest.

    The compiler itself checks all of it but the outputs.
    """
    return memory["arguments"] + memory["outputs"] - memory["alias"] + memory["temporary"] + memory["code"]


def all_reduce_seconds(topology: Topology, size_bytes: int) -> float:
    """Computes the time of a sum over all chips: each sends and receives 2 (n - 1) / n of it, over all its links.

    The sum is left on each chip. This is the time of a ring, or of rings through all dimensions of a torus, without
    latency (Patarasu & Yuan, 2009). The chip with the fewest links sets the pace.
    """
    if topology.chips == 1:
        return 0.0
    sent = 2 * (topology.chips - 1) / topology.chips * size_bytes
    return sent / (topology.fewest_links * topology.chip.link_bytes_per_second)


def bound(answer: dict[str, Any], memory_bytes: int, all_reduce: float, topology: Topology) -> dict[str, float]:
    """Computes the shortest time of a step that moves so many bytes of HBM.

    Returns:
      `memory_seconds`, `step_seconds`, and `utilisation`: of the peak, at most.
    """
    arithmetic = answer["flops"] / topology.chip.flops_per_second
    memory = memory_bytes / topology.chip.hbm_bytes_per_second
    step = max(arithmetic, memory) + all_reduce
    return {"memory_seconds": memory, "step_seconds": step, "utilisation": arithmetic / step}


def report(
    topology: Topology,
    answer: dict[str, Any],
    *,
    rows: int,
    row_length: int,
    examples_per_row: float,
    gradient_bytes: int,
) -> dict[str, Any]:
    """Collects all facts about a step on a topology.

    Args:
      topology: the slice.
      answer: the compiler's, see `compile.py`.
      rows: of a chip.
      row_length: tokens of a row, padding included.
      examples_per_row: on average.
      gradient_bytes: of all gradients, in float32.

    Returns:
      The answer, and `topology`, `chips`, `rows_per_chip`, `fits`; where it compiled `needed_hbm_bytes`,
      `arithmetic_seconds`, `all_reduce_seconds`, and three times of a step with their rates: `by_hbm_bytes`,
      `by_xla_bytes` and `estimate`, see the top of this module.
    """
    chip = topology.chip
    found = {"topology": topology.name, "chips": topology.chips, "rows_per_chip": rows, **answer}
    found["available_hbm_bytes"] = answer.get("available_hbm_bytes", chip.usable_hbm_bytes)
    if not answer["compiled"]:
        return found | {"fits": False}
    needed = needed_hbm_bytes(answer["memory"])
    all_reduce = all_reduce_seconds(topology, gradient_bytes)
    arithmetic = answer["flops"] / chip.flops_per_second
    estimated = answer["estimated_cycles"] / chip.cycles_per_second + all_reduce
    times = {
        "by_hbm_bytes": bound(answer, answer["hbm_bytes"], all_reduce, topology),
        "by_xla_bytes": bound(answer, answer["xla_bytes_accessed"], all_reduce, topology),
        "estimate": {"step_seconds": estimated, "utilisation": arithmetic / estimated if estimated else 0.0},
    }
    for each in times.values():
        examples = rows * examples_per_row / each["step_seconds"] if each["step_seconds"] else 0.0
        tokens = rows * row_length / each["step_seconds"] if each["step_seconds"] else 0.0
        each |= {"examples_per_second_per_chip": examples, "examples_per_second": examples * topology.chips}
        each |= {"tokens_per_second_per_chip": tokens, "tokens_per_second": tokens * topology.chips}
    return found | {
        "fits": needed <= chip.usable_hbm_bytes,
        "needed_hbm_bytes": needed,
        "arithmetic_seconds": arithmetic,
        "all_reduce_seconds": all_reduce,
        **times,
    }


def verdict(found: dict[str, Any]) -> str:
    """Tells whether a step fits, in words."""
    if not found["compiled"]:
        return found["reason"]
    needed, available = (found[name] / GIB for name in ("needed_hbm_bytes", "available_hbm_bytes"))
    return f"{'fits' if found['fits'] else 'does not fit'}: {needed:.2f} of {available:.2f} GiB"


def print_table(reports: Sequence[dict[str, Any]]) -> None:
    """Prints one column a topology, to standard output."""
    table = Table()
    table.add_column("one step, one chip", no_wrap=True)
    for found in reports:
        table.add_column(found["topology"], justify="right")
    for label, cells in _lines(reports):
        table.add_row(label, *cells)
    Console().print(table)


def _lines(reports: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    def line(label: str, cell) -> tuple[str, list[str]]:
        return label, [cell(found) if found["compiled"] else "" for found in reports]

    def top(name: str, scale: float):
        return lambda found: _number(found[name] * scale)

    def of(name: str, key: str, scale: float):
        return lambda found: _number(found[name][key] * scale)

    def needed(found: dict[str, Any]) -> str:
        if "needed_hbm_bytes" not in found:
            return ""
        return ("" if found["compiled"] else "over ") + _number(found["needed_hbm_bytes"] / GIB)

    lines = [
        ("chips", [str(found["chips"]) for found in reports]),
        ("rows a chip", [str(found["rows_per_chip"]) for found in reports]),
        ("fits", ["yes" if found["fits"] else "no" for found in reports]),
        ("HBM usable, GiB", [_number(found["available_hbm_bytes"] / GIB) for found in reports]),
        ("HBM needed, GiB", [needed(found) for found in reports]),
        line("  arguments, GiB", of("memory", "arguments", 1 / GIB)),
        line("  temporary, GiB", of("memory", "temporary", 1 / GIB)),
        line("  program, GiB", of("memory", "code", 1 / GIB)),
        line("arithmetic, TFLOP", top("flops", 1e-12)),
        line("HBM traffic, GB", top("hbm_bytes", 1e-9)),
        line("XLA's bytes accessed, GB", top("xla_bytes_accessed", 1e-9)),
        line("arithmetic at peak, ms", top("arithmetic_seconds", 1e3)),
        line("HBM traffic at peak, ms", of("by_hbm_bytes", "memory_seconds", 1e3)),
        line("XLA's bytes at peak, ms", of("by_xla_bytes", "memory_seconds", 1e3)),
        line("all-reduce, ms", top("all_reduce_seconds", 1e3)),
    ]
    for name, title, of_what in (
        ("by_hbm_bytes", "bound, by HBM traffic", ", at most"),
        ("by_xla_bytes", "cautious, by XLA's bytes", ""),
        ("estimate", "the compiler's estimate", ""),
    ):
        lines += [
            (title, [""] * len(reports)),
            line("  step, ms", of(name, "step_seconds", 1e3)),
            line(f"  utilisation{of_what}", lambda found, name=name: f"{found[name]['utilisation']:.1%}"),
            line("  examples/s a chip", of(name, "examples_per_second_per_chip", 1)),
            line("  examples/s", of(name, "examples_per_second", 1)),
            line("  tokens/s a chip", of(name, "tokens_per_second_per_chip", 1)),
            line("  tokens/s", of(name, "tokens_per_second", 1)),
        ]
    return lines


def _number(value: float) -> str:
    """Rounds to three significant digits; 100 or more, to a whole number."""
    if value >= 100.0 or value == 0.0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
