"""README.md beside a SavedModel, in `assets.extra/`: the libraries that a program must load first, and code."""

from __future__ import annotations

from pathlib import Path

from tfpipe import templates
from tfpipe.files import write_text
from tfpipe.formats.base import Source

_LIBRARIES = ("_whitespace_tokenizer_v2.so", "_fast_wordpiece_tokenizer.so")
"""of the wheel of tensorflow-text, with the operators of every text signature"""
_NORMALIZER = "_normalize_ops.so"
"""the one that `data.cleaning.unicode` needs as well"""


def write_readme(source: Source, path: Path, *, takes_text: bool) -> None:
    """Writes `assets.extra/README.md`.

    Args:
      source: gives the classifier and its tokenizer.
      path: of the SavedModel.
      takes_text: whether it has signatures that take texts.
    """
    classifier, settings = source.classifier, source.tokenizer.settings
    normalized = settings.unicode is not None
    ids = [settings.vocabulary.index(token) for token in (settings.cls_token, settings.unk_token, settings.sep_token)]
    text = templates.render(
        Path(__file__).parent / "README.md.jinja",
        takes_text=takes_text,
        labels=classifier.labels,
        pairs=source.pairs,
        max_length=classifier.max_length,
        positions=classifier.architecture.max_position_embeddings,
        cleaned=settings.is_cleaning,
        normalized=normalized,
        libraries=(*_LIBRARIES, *([_NORMALIZER] if normalized else [])),
        row=",".join(map(str, ids)),
    )
    (path / "assets.extra").mkdir(exist_ok=True)
    write_text(path / "assets.extra" / "README.md", text)
