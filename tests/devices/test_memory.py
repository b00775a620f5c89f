import os

import pytest

from tfpipe.devices import memory
from tfpipe.encoders.architecture import Architecture

VARIABLE = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"
BERT = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture
def value(monkeypatch):
    """The variable's value, which is unset before and after the test."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    return lambda: os.environ.get(VARIABLE)


def test_bert_base_has_as_many_weights_as_its_authors_say():
    assert Architecture.from_dict(BERT).size == 109_482_240


def test_freed_memory_of_a_large_encoder_is_returned(value):
    memory.return_freed(Architecture.from_dict(BERT).size)
    assert value() == "1"


def test_a_small_encoder_keeps_the_faster_allocator(value):
    memory.return_freed(Architecture.from_dict(BERT | {"hidden_size": 384, "intermediate_size": 1536}).size)
    assert value() is None


def test_what_the_user_has_set_stays(value):
    os.environ[VARIABLE] = "0"
    memory.return_freed(10**9)
    assert value() == "0"
