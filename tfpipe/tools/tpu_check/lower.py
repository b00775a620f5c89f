"""The lowering of a training step to StableHLO with TensorFlow alone, and the parts of it that no TPU can run.

Enters: a function of tensors. Leaves: the text of its module, the variables that it reads as parameters and those that
it assigns as outputs. TensorFlow's CPU wheel has no TPU kernels, so the step is lowered for a CPU. Both go through the
same kernels of tf2xla, but for a few that call the host's own code, which the TPU's compiler then refuses by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfpipe.errors import GateError

_LISTED = 5


def lower(step: Callable, arguments: Sequence[tf.TensorSpec]) -> str:
    """Lowers a step to StableHLO.

    Args:
      step: takes one tensor for each argument; may assign variables.
      arguments: their shapes and types.

    Raises:
      GateError: the step can't be compiled: it has an operator of the host's, or an unknown shape; in one line.
    """
    function = tf.function(step, jit_compile=True, autograph=False)
    try:
        text = function.experimental_get_compiler_ir(*arguments)(stage="stablehlo", platform_name="CPU")
    except (ValueError, tf.errors.OpError) as error:
        raise GateError(f"the step can't run on a TPU: {explain(str(error))}") from error
    found = problems(text)
    if found:
        raise GateError(f"the step can't run well on a TPU: {'; '.join(found)}")
    return text


def explain(message: str) -> str:
    """Explains TensorFlow's exception in a few words: the operators that XLA does not have, by type and name."""
    refused = re.findall(r"(\w+) \(No registered '\w+' OpKernel[^{]*((?:\{\{[^}]*\}\})*)", message)
    if refused:
        names = [f"{kind} (operator {_last_node(nodes, kind)})" for kind, nodes in refused]
        return f"{_listed(names)}: XLA has no such operator, it runs on the host; take it out of the step"
    if "static input shape" in message:
        return "an argument's shape is not known before the step runs; give every dimension a size"
    first = next((line.strip() for line in message.splitlines() if line.strip()), "no reason given")
    nodes = re.findall(r"\{\{node ([^}]*)\}\}", message)
    return first[:300] + (f" (operator {nodes[-1]})" if nodes and nodes[-1] not in first[:300] else "")


def problems(stablehlo: str) -> list[str]:
    """Lists what a TPU compiles but should not run, with the operators: 64-bit floats, shapes that depend on values."""
    found = []
    wide = operators_with(stablehlo, r"\btensor<(?:[^<>]*x)?(?:f64|complex<f64>)>")
    if wide:
        found.append(f"float64 in {_listed(wide)}: a TPU has none and emulates it slowly; cast to float32")
    dynamic = operators_with(stablehlo, r"\btensor<[^>]*\?")
    if dynamic:
        found.append(f"a shape that depends on values in {_listed(dynamic)}: every shape must be known beforehand")
    return found


def operators_with(stablehlo: str, pattern: str) -> list[str]:
    """Lists the TensorFlow operators whose lines match a pattern, once each, in order; `?` where none is named."""
    places = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", stablehlo, flags=re.MULTILINE))
    names: dict[str, None] = {}
    for line in stablehlo.splitlines():
        if " = " in line and not line.startswith(("#loc", "module")) and re.search(pattern, line):
            place = re.search(r"loc\((#loc\d*)\)\s*(?:\{)?$", line)
            names[_name_of(place[1], places) if place else "?"] = None
    named = [name for name in names if name != "?"]
    return named or list(names)


def _name_of(place: str, places: dict[str, str]) -> str:
    seen = set()
    while place not in seen:
        seen.add(place)
        text = places.get(place, "")
        if quoted := re.search(r'"([^"]+)"', text):
            return quoted[1]
        within = re.search(r"#loc\d*", text)
        place = within[0] if within else place
    return "?"


def _last_node(nodes: str, default: str) -> str:
    named = re.findall(r"\{\{node ([^}]*)\}\}", nodes)
    return named[-1] if named else default


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
