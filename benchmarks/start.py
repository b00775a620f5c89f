"""Where the time goes between the start of a process and its first answer: processor time of each step, in ms.

    python benchmarks/start.py runs/quickstart/export/int8/onnx

Each of five processes imports, opens the artifact and answers one sentence; medians are printed. The clock shows more
on a machine that does other work.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

STEPS = """
import sys, time
def told(step, last=[0.0]):
    now = time.process_time()
    print(step, 1e3 * (now - last[0]), sep="\\t")
    last[0] = now
told("Python")
import pathlib, tfpipe
told("import tfpipe")
import numpy
told("import numpy")
import tokenizers
told("import tokenizers")
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tokens.fast_tokenizer import FastTokenizer
told("import tfpipe.tokens")
from tfpipe.tools.predict import by_tokens
told("import tfpipe.tools.predict.by_tokens (pydantic)")
from tfpipe.artifacts import format_in
folder = pathlib.Path(sys.argv[1])
format = format_in(folder)
format.code
told("import the runtime, and what inspects")
settings = TokenizerSettings.read(folder)
told("read and check the tokenizer's files")
FastTokenizer(settings, 64)
told("build the tokenizer")
format.code.load(folder, 1)
told("inspect and load the artifact")
answerer = by_tokens.open_folder(folder)
told("(all three once more, as open_folder does)")
answerer.answer(answerer.prepare(["a small gem"], None))
told("answer")
assert "tensorflow" not in sys.modules
"""


def main() -> None:
    """Prints the table."""
    found: dict[str, list[float]] = {}
    for _ in range(5):
        lines = subprocess.run(
            [sys.executable, "-c", STEPS, sys.argv[1]], capture_output=True, text=True, check=True
        ).stdout
        for line in lines.splitlines():
            step, took = line.split("\t")
            found.setdefault(step, []).append(float(took))
    medians = {step: statistics.median(times) for step, times in found.items()}
    for step, took in medians.items():
        print(f"{took:7.1f}  {step}")
    print(f"{sum(took for step, took in medians.items() if not step.startswith('(')):7.1f}  all, ( ) aside")


if __name__ == "__main__":
    main()
