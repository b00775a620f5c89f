"""A two-layer BERT with a tiny vocabulary and random weights, made with NumPy alone."""

from __future__ import annotations

import numpy as np

TINY = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
}

WORDS = (
    "the a an and of to is it in that this was film movie story good great fine lovely warm funny bad awful dull weak "
    "boring cold with for as but on not are his her at by be from plot acting cast scene very so one all"
).split()


def tiny_vocabulary() -> list[str]:
    characters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    letters = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *letters, *(w for w in WORDS if len(w) > 1)]


def tiny_weights(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a BertModel in transformers' naming; large enough that mistakes show."""
    random = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0.0, 0.15, shape).astype(np.float32)

    def norm(prefix: str) -> dict[str, np.ndarray]:
        return {f"{prefix}.weight": 1.0 + normal(hidden), f"{prefix}.bias": normal(hidden)}

    def dense(prefix: str, out: int, into: int) -> dict[str, np.ndarray]:
        return {f"{prefix}.weight": normal(out, into), f"{prefix}.bias": normal(out)}

    weights = {
        "embeddings.word_embeddings.weight": normal(config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": normal(config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": normal(config["type_vocab_size"], hidden),
        **norm("embeddings.LayerNorm"),
        **dense("pooler.dense", hidden, hidden),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            weights |= dense(f"{layer}.attention.self.{part}", hidden, hidden)
        weights |= dense(f"{layer}.attention.output.dense", hidden, hidden)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= dense(f"{layer}.intermediate.dense", inner, hidden)
        weights |= dense(f"{layer}.output.dense", hidden, inner)
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights


def tiny_head(labels: int, hidden: int = TINY["hidden_size"], seed: int = 1) -> dict[str, np.ndarray]:
    """Random weights of the head of a BertForSequenceClassification."""
    random = np.random.default_rng(seed)
    return {
        "classifier.weight": random.normal(0.0, 0.5, (labels, hidden)).astype(np.float32),
        "classifier.bias": random.normal(0.0, 0.5, labels).astype(np.float32),
    }
