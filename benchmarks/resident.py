"""Memory that a SavedModel takes in TensorFlow (loaded, after a call by token ids, after one by text, released).

    python benchmarks/resident.py runs/quickstart/export/int8/saved_model runs/quickstart/export/dense/saved_model

Each in a process of its own; MiB of the resident set beyond what the process held before, freed pages given back; and
the processor seconds that loading took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def resident() -> int:
    """MiB of this process."""
    from tfpipe.devices.memory import give_back

    give_back()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def measure(path: str) -> dict[str, Any]:
    """Loads a SavedModel and asks it twice."""
    import numpy as np
    import tensorflow as tf

    from tfpipe.formats.base import Requests
    from tfpipe.formats.saved_model import format as saved_model

    before, found = resident(), {}
    started = time.process_time()
    by_tokens, by_text = saved_model.load(Path(path))
    found["processor seconds to load"] = round(time.process_time() - started, 2)
    found["loaded"] = resident() - before
    ids = np.full((4, 30), 2000, np.int32)
    tokens = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    by_tokens.ask(Requests(tokens, [""] * 4, None))
    found["after a call by tokens"] = resident() - before
    by_text.ask(Requests({}, ["a small gem"], None))
    found["after one by text"] = resident() - before
    del by_tokens, by_text
    found["released"] = resident() - before
    return found | {"TensorFlow": before, "version": tf.__version__}


def main() -> None:
    """Prints a line of JSON for each path."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2])))
        return
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    for path in sys.argv[1:]:
        command = [sys.executable, __file__, "--one", path]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        print(path, output.strip(), flush=True)


if __name__ == "__main__":
    main()
