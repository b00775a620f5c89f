"""Notes on an encoder's tokenizer, for the user, before texts go through it.

Enters: a folder of tokenizer files and the settings read from it. Leaves: lines for the console. Nothing here refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfpipe.encoders.transformers import TOKENIZER_CONFIG
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

# An uncased English vocabulary has no such piece. A Chinese one has a few Latin abbreviations.
_MANY = 0.05


def notes_on(directory: Path, settings: TokenizerSettings) -> Iterator[str]:
    """Yields a line for each default that was taken and each way in which vocabulary and normalization do not match.

    Args:
      directory: folder that the settings were read from.
      settings: as read from it, before `data.cleaning`.
    """
    if not (directory / TOKENIZER_CONFIG).exists():
        yield (
            f"  {directory}: no {TOKENIZER_CONFIG}, so texts are lower-cased and lose their accents, as transformers "
            "does without it"
        )
    special = settings.special_tokens.values()
    pieces = [piece.removeprefix("##") for piece in settings.vocabulary if piece not in special]
    lost = _lost(pieces, lowercase=settings.do_lower_case, strip_accents=settings.strip_accents)
    if lost > _MANY * len(pieces):
        does = "lower-cased" if settings.do_lower_case else "stripped of accents"
        yield (
            f"warning: {directory}: {lost:,} of {len(pieces):,} word pieces ({lost / len(pieces):.0%}) can never "
            f"occur, as texts are {does}; if the encoder was trained without, set do_lower_case and strip_accents in "
            f"its {TOKENIZER_CONFIG}"
        )
    letters = any(character.islower() for piece in pieces for character in piece)
    if letters and not settings.do_lower_case and not _lost(pieces, lowercase=True, strip_accents=False):
        yield (
            f"warning: {directory}: no word piece has a capital letter, but texts are not lower-cased: words with one "
            f"become {settings.unk_token}; if the encoder was trained on lower-cased texts, set do_lower_case in its "
            f"{TOKENIZER_CONFIG}"
        )


def _lost(pieces: list[str], lowercase: bool, strip_accents: bool | None) -> int:
    """Counts the pieces with a character that lower-casing or stripping takes away or replaces."""
    from tokenizers.normalizers import BertNormalizer

    # Pieces that any setting loses, such as white space, are not what the warning is about.
    kept, changed = (
        BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=strip, lowercase=lower)
        for strip, lower in ((False, False), (strip_accents, lowercase))
    )
    return sum(
        kept.normalize_str(piece) == piece != changed.normalize_str(piece)
        for piece in pieces
        if not (piece.isascii() and piece == piece.lower())  # which is most of them, and nothing changes these
        and not (piece.startswith("[") and piece.endswith("]"))  # [unused1] and the like
    )
