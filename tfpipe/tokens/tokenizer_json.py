"""A tokenizer as `tokenizer.json`, the form that the tokenizers library, transformers 5 and transformers.js read.

Enters: a vocabulary, the options of BERT's normalizer, the special tokens. Leaves: the content of the file. It holds no
`data.cleaning`, for which the format has no place that all its readers look at.
"""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfpipe.encoders.vocabulary import MAX_WORD_CHARS


def wordpiece(
    vocabulary: tuple[str, ...],
    tokens: dict[str, str],
    *,
    do_lower_case: bool,
    strip_accents: bool | None,
    tokenize_chinese_chars: bool,
    max_length: int | None,
) -> Tokenizer:
    """Builds BERT's tokenizer.

    Args:
      vocabulary: one piece per id.
      tokens: name in transformers (`unk_token` and so on) -> token.
      do_lower_case: as transformers names it, and the next two.
      strip_accents: None: as `do_lower_case` says.
      tokenize_chinese_chars: whether each ideograph is a word.
      max_length: tokens, special ones included, at which texts are cut, the longer text of a pair first; None: never.
    """
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=tokens["unk_token"], max_input_chars_per_word=MAX_WORD_CHARS))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=do_lower_case,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(sorted(tokens.values(), key=ids.__getitem__))
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    return tokenizer
