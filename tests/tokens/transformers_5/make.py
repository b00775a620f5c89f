"""Writes the folders beside this file with transformers 5.

    .venv/bin/python tests/tokens/transformers_5/make.py

The tests read them as they were written by one release, whichever is installed.

Each folder holds a tokenizer of a vocabulary made here, as `save_pretrained` writes it, and its answers (`ids.json`).
"""

import json
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer, BertConfig, BertTokenizer, PreTrainedTokenizerFast

MAX_LENGTH = 24
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = "Paris paris École ecole école film word a A b É é e x X ß ss i ı İ 1 ½ mask sep Mask MASK SEP".split()
CHARACTERS = (
    "汉字豈𠀀ㄅ한국가\u1100\u1161\u11a8العربيةشעבת"
    "हिन्\u0301\u0323\u200d😀👩👧🏽🇫🇷❤\ufe0fﬁﬀΣσςö[]()!.,'-_#<>$%&@/\\\"~`^|+=*?;:¡«»“”‘’—…"
)
TEXTS = [
    "",
    " \t\n\r ",
    "Paris École film films FILM",
    "E\u0301cole e\u0301\u0323 É \u0301 a\u0323\u0301",
    "汉字 a汉b 豈 𠀀 ㄅ",
    "한국 \u1100\u1161\u11a8 가 각",
    "العَرَبِيَّة ش 🤲",
    "עִבְרִית हिन्दी",
    "😀 👩‍👩‍👧 👍🏽 🇫🇷 ❤️",
    "a\0b \x01A\x7fb\x85c \ue000 \ufffd \ufeff \u00ad \u200b",
    "a\u00a0b\u3000A\tb\u2028a\u2029b\u202fb\u180ee",
    "[MASK] a[MASK]b [mask] [Mask] [SEP] [CLS][PAD] [UNK] [sep] [ MASK]",
    "[MASK]\u0301 \u0301[SEP] [[MASK]] [SE\0P] [MASK",
    "½ ﬁ ﬀ ß ẞ ı İ ΣΑΣ σς Ö ö",
    "a" * 100 + " " + "a" * 101 + " " + "é" * 99 + " " + "汉" * 101,
    'don\'t (a) [b] "x" a--b $1.00 “x” …',
    "a " * 40,
    "word wordfilm unknownword ##a a##b",
]


def answers(tokenizer, texts, pairs):
    encoded = dict(tokenizer(texts, pairs, truncation=True, max_length=MAX_LENGTH))
    return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}


def main():
    here = Path(__file__).parent
    pieces = list(
        dict.fromkeys([*SPECIAL, *WORDS, *CHARACTERS, *(f"##{piece}" for piece in [*"abseé汉\u0301", "film"])])
    )
    text = here / "vocab.txt"
    text.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    uncased, cased = (BertTokenizer(str(text), do_lower_case=lower) for lower in (True, False))
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    made = {
        "uncased": uncased,
        "cased": cased,
        "accents": BertTokenizer(str(text), do_lower_case=True, strip_accents=False, tokenize_chinese_chars=False),
        "generic": PreTrainedTokenizerFast(tokenizer_object=cased.backend_tokenizer, **named),
    }
    text.unlink()
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(here / name)
        BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                   intermediate_size=32, max_position_embeddings=32).save_pretrained(here / name)  # fmt: skip
        loaded = AutoTokenizer.from_pretrained(here / name)
        content = {
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "max_length": MAX_LENGTH,
            "texts": TEXTS,
            "single": answers(loaded, TEXTS, None),
            "pair": answers(loaded, TEXTS, TEXTS[::-1]),
        }
        (here / name / "ids.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
