"""The contestants of benchmarks/score.py: their command lines, and one turn of one of them, timed and watched."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from machine_state import probe
from prepare import memory_mib, processes_below, wait_for_orphans

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "score_contestants"
THREADS = 2
PROGRAM = "import sys; sys.argv[0] = 'tfpipe'; from tfpipe.cli import main; main()"
SENTENCE = "a small gem"

TFPIPE = "predict {run} --variant int8 --artifact {artifact} --input {data} --output {output}"
TFPIPE_DEFAULT = "predict {run} --variant int8 --input {data} --output {output}"
TFPIPE_SENTENCE = "predict {run} --variant int8 --artifact {artifact} {sentence}"
BEFORE = "predict {saved_model} --input {lines} --output {output}"
"""a SavedModel by its own path: a run that has published a faster OpenVINO artifact would answer with that"""
BEFORE_RUN = "predict {run} --variant int8 --input {lines} --output {output}"
BEFORE_SENTENCE = "predict {saved_model} {sentence}"
RUN_SENTENCE = "predict {run} --variant int8 {sentence}"
"""what a user types, before and now: the artifact is the command's own choice"""
PIPELINE = "{script} {optimum} {train} {data} {output} {threads} {max_length}"


class Contestant(NamedTuple):
    """Who scores."""

    name: str
    side: str
    """whose Python and code: `before`, `tfpipe`, `peer` or `script`"""
    arguments: str
    """of the command, separated by spaces, with names of `Places.values` in braces"""
    values: dict[str, str]
    output: str = "scored.csv"
    sentence: str | None = None
    """the arguments that answer `SENTENCE` alone; None: it is not asked"""
    int8_of_tfpipe: bool = True
    """whether its labels have to agree with the others that are: the same int8 model in the same precision"""
    usual: bool = True
    """whether `run` asks it without `--only`"""


def _script(name: str, folder: str, more: str = "") -> tuple[str, str, dict[str, str]]:
    arguments = "{script} {int8}/{folder} {data} {output} {threads}" + more
    return "script", arguments, {"script": str(SCRIPTS / name), "folder": folder}


def _pipeline(name: str, more: str = "") -> Contestant:
    values = {"script": str(SCRIPTS / "by_pipeline.py")}
    return Contestant(name, "peer", PIPELINE + more, values, int8_of_tfpipe=False)


CONTESTANTS = (
    Contestant("before", "before", BEFORE, {}, "scored.jsonl", BEFORE_SENTENCE),
    Contestant("before run", "before", BEFORE_RUN, {}, "scored.jsonl", RUN_SENTENCE, usual=False),
    Contestant("tfpipe", "tfpipe", TFPIPE_DEFAULT, {}, sentence=RUN_SENTENCE, usual=False),
    *(
        Contestant(f"tfpipe {each}", "tfpipe", TFPIPE, {"artifact": each}, sentence=TFPIPE_SENTENCE)
        for each in ("onnx", "openvino")
    ),
    _pipeline("pipeline"),
    _pipeline("pipeline sorted", " sorted"),
    Contestant("onnx script", *_script("by_onnxruntime.py", "onnx")),
    Contestant("openvino script", *_script("by_openvino.py", "openvino", " f32")),
    Contestant("openvino script bf16", *_script("by_openvino.py", "openvino", " bf16"), int8_of_tfpipe=False),
)


class Places(NamedTuple):
    """Where everything lies."""

    run: Path
    scratch: Path
    """inputs of the contestants' own format, the peer's model, what the contestants write"""
    before: Path | None = None
    """a checkout of the other commit"""
    peer: Path | None = None
    """Python of the peers' environment"""
    data: Path = Path()
    """CSV"""
    scored: str = "scored"
    """folder for what the contestants write: of these texts and this model alone"""

    def output(self, contestant: Contestant) -> Path:
        return self.scratch / self.scored / contestant.name.replace(" ", "_") / contestant.output

    def int8(self) -> Path:
        return self.run / "export" / "int8"

    def lines(self) -> Path:
        return self.scratch / "lines.txt"

    def optimum(self) -> Path:
        """The peer's model, made of these very weights."""
        digest = hashlib.sha256((self.run / "train" / "model.safetensors").read_bytes()).hexdigest()
        return self.scratch / f"optimum-{digest[:12]}"

    def max_length(self) -> int:
        """Tokens at which the run's model cuts, which the peers are told."""
        config = self.int8() / "onnx" / "config.json"
        return json.loads(config.read_text(encoding="utf-8"))["max_length"]

    def lacks(self, contestant: Contestant) -> str | None:
        """Says what a contestant needs that is not there; None: nothing."""
        artifact = contestant.values.get("folder") or contestant.values.get("artifact") or "saved_model"
        if contestant.side == "before" and self.before is None:
            return "--before CHECKOUT"
        if contestant.side == "peer":
            return "--peer PYTHON" if self.peer is None else None
        return None if (folder := self.int8() / artifact).is_dir() else f"{folder} (export.formats)"

    def make_optimum(self) -> None:
        """The peer's export and dynamic quantization, once; not part of any turn."""
        target = self.optimum()
        if (target / "int8" / "model_quantized.onnx").is_file():
            return
        script = (
            f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; import onnx_inference as own; "
            "own.export_peer(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        subprocess.run([self.peer, "-c", script, self.run / "train", target], check=True, env=environment(None))

    def command(self, contestant: Contestant, arguments: str) -> list[str]:
        """The command line, with Python."""
        values = contestant.values | {
            "run": str(self.run),
            "int8": str(self.int8()),
            "saved_model": str(self.int8() / "saved_model"),
            "train": str(self.run / "train"),
            "optimum": str(self.optimum() / "int8") if contestant.side == "peer" else "",
            "data": str(self.data),
            "lines": str(self.lines()),
            "output": str(self.output(contestant)),
            "threads": str(THREADS),
            "max_length": str(self.max_length()),
            "sentence": SENTENCE,
        }
        python = str(self.peer) if contestant.side == "peer" else sys.executable
        program = ["-c", PROGRAM] if contestant.side in ("before", "tfpipe") else []
        return [python, *program, *(part.format(**values) for part in arguments.split(" "))]

    def code(self, contestant: Contestant) -> Path | None:
        """The checkout whose tfpipe a contestant runs; None: none."""
        return {"before": self.before, "tfpipe": HERE.parent}.get(contestant.side)


def environment(code: Path | None) -> dict[str, str]:
    """Of a contestant: two threads whichever library asks, no GPU, no network."""
    libraries = ("OMP", "MKL", "OPENBLAS", "RAYON", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    found = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found |= {f"{name}_THREADS" if name.startswith("TF") else f"{name}_NUM_THREADS": str(THREADS) for name in libraries}
    return found | {"CUDA_VISIBLE_DEVICES": "-1", "HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(code)} if code else {})


def turn(command: list[str], code: Path | None, log: Path, minutes: float) -> dict[str, Any]:
    """One command from start to end: seconds of the clock, and of the processors by it and all below it.

    The caller adopts orphans (`prepare.adopt_orphans`), so that what a command leaves behind counts.
    """
    rate, load = probe(), os.getloadavg()[0]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment(code), cwd=log.parent,
            start_new_session=True,
        )  # fmt: skip
        with ended(process):
            try:
                process.wait(60 * minutes)
            except subprocess.TimeoutExpired:
                return {"error": f"not done in {minutes:g} minutes"}
        seconds = time.perf_counter() - started
        wait_for_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        return {"error": f"exit {process.returncode}: {last_line(log)}"}
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "seconds": round(seconds, 3),
        "processor_seconds": round(used, 3),
        "rate": round((rate + probe()) / 2, 1),
        "load_before": round(load, 2),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def last_line(log: Path) -> str:
    """What a process said last."""
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """Kills a process and its group where the block ends before it does: a time limit, or control-C."""
    try:
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wait_for_orphans()


def memory(process: subprocess.Popen, minutes: float) -> Iterator[tuple[float, float, float]]:
    """Seconds since the start, and MiB of RSS and PSS of all processes together, twice a second until the end."""
    started = time.perf_counter()
    with ended(process):
        while process.poll() is None and (elapsed := time.perf_counter() - started) < 60 * minutes:
            found = [memory_mib(pid) for pid in processes_below(process.pid)]
            yield elapsed, sum(rss for rss, _ in found), sum(pss for _, pss in found)
            time.sleep(0.5)
