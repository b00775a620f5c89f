"""Golden requests: an artifact's answers where it was exported, to be compared where it will serve.

Enters: an artifact and rows of the test split. Leaves: `golden.jsonl` beside it. Its first line describes the artifact,
and how far its answers may move (`limits`). Each other line is a request, as text and as token ids, and the answer,
logits and label. `tfpipe replay DIR` replays it in the artifact's own runtime.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfpipe
from tfpipe.artifacts import Format
from tfpipe.config.export import Verify
from tfpipe.devices.strategy import float32_kept
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.errors import InputError
from tfpipe.files import write_text
from tfpipe.formats.base import Requests
from tfpipe.model.classifier import Classifier
from tfpipe.provenance import machine
from tfpipe.rundir.record import GOLDEN as FILE
from tfpipe.tasks import TASKS, Decision, task_of
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer

FORMAT = 1
LIMITS = {"max_abs_logit_diff", "max_scaled_logit_diff", "label_agreement", "mean_abs_probability_diff"}
REAL_ROWS = 24
MAX_LOGIT_DIFF = 1e-4
"""of a float artifact, from machine to machine, in units of a row's largest logit where that is more than 1"""

HARD_TEXTS = {
    "empty": b"",
    "white space": " \t\n\u00a0\u3000".encode(),
    "5,000 words": b"a film that never ends, " * 1000,
    "one long word": b"a" * 5000,
    "punctuation": b"...!?-- (:;,) \"'`",
    "emoji": "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 a great film ☺️".encode(),
    "combining marks": "e\u0301tude a\u0300\u0301\u0302\u0303 नमस्ते ก็".encode(),
    "right to left": "فيلم رائع שלום \u202eabc\u202c".encode(),
    "CJK": "这部电影很好 映画がいい 영화가 좋다".encode(),
    "compatibility": "½ ﬁlm ＦＵＬＬ ² Straße İ".encode(),
    "special tokens": b"[CLS] a film [SEP] another [MASK] [PAD] [UNK]",
    "line separators": "a\u0085 film \u2028 of \u2029 lines\r\n".encode(),
    "NUL and controls": b"a\x00 film\x00\x01\x7f \xe2\x80\x8b\xef\xbb\xbf",
    "invalid UTF-8": b"caf\xe9 \xff\xfe a film \xed\xa0\x80 \xf0\x9f\x91",
}
"""what surprises a tokenizer, as bytes: a protobuf carries invalid UTF-8 as well"""


def tokenized(texts: list[bytes], text_pairs: list[bytes] | None, tokenizer: Tokenizer) -> Requests:
    """Makes requests of texts, tokenized together."""
    columns = [tf.constant(texts)] if text_pairs is None else [tf.constant(texts), tf.constant(text_pairs)]
    return Requests({name: value.numpy() for name, value in tokenizer.dense(*columns).items()}, texts, text_pairs)


def hard_requests(tokenizer: Tokenizer, *, pairs: bool) -> Requests:
    """Makes requests of the hard texts; in pairs, each with the next."""
    texts = list(HARD_TEXTS.values())
    return tokenized(texts, [*texts[1:], texts[0]] if pairs else None, tokenizer)


def golden_requests(table: TokenTable, tokenizer: Tokenizer, *, pairs: bool) -> Requests:
    """Makes requests of rows of a table, at the lengths that occur, shortest first, and of the hard texts."""
    ordered = np.argsort(table.lengths, kind="stable")
    rows = ordered[np.unique(np.linspace(0, len(ordered) - 1, REAL_ROWS).round().astype(int))]
    hard = hard_requests(tokenizer, pairs=pairs)
    texts = [text.encode() for text in table.texts(rows)] + hard.texts
    seconds = [(pair or "").encode() for pair in table.text_pairs(rows)] + hard.text_pairs if pairs else None
    return tokenized(texts, seconds, tokenizer)


@float32_kept()
def record(
    format: Format,
    artifact: Path,
    requests: Requests,
    classifier: Classifier,
    variant: str,
    saturation: dict[str, Any] | None = None,
) -> None:
    """Asks an artifact, one request at a time, and writes its answers.

    An artifact that takes texts is asked by text, which tests its tokenizer as well. The limits are the defaults of the
    settings `verify.*`, but two labels may change in int8, as requests are few.

    Args:
      format: of the artifact.
      artifact: its directory.
      requests: requests to ask.
      classifier: gives labels and task.
      variant: `dense`, `distilled`, `pruned` or `int8`.
      saturation: result of `saturation.saturation`, for formats that it is about.
    """
    asked = max(format.code.load(artifact), key=lambda each: each.takes_text)
    golden = artifact / format.extras / FILE
    golden.parent.mkdir(exist_ok=True)
    limits = Verify()
    head: dict[str, Any] = {
        "format": FORMAT,
        "artifact": artifact.name,
        "variant": variant,
        "task": classifier.task,
        "labels": classifier.labels,
        **classifier.decision.as_json(classifier.labels),
        "tfpipe": tfpipe.__version__,
        "recorded_on": machine(),
    }
    if saturation is not None and format.adds_in_16_bits:
        head["saturating_sums"] = saturation["sums"]
    if variant == "int8" or asked.rounded:  # the order of additions moves a value across a rounding border now and then
        head["limits"] = {
            "label_agreement": min(limits.min_label_agreement_int8, 1.0 - 2.0 / len(requests)),
            "mean_abs_probability_diff": limits.max_probability_diff_int8,
        }
    else:
        head["limits"] = {"max_scaled_logit_diff": MAX_LOGIT_DIFF}
    lines = [head]
    for number in range(len(requests)):
        one = requests.part(number, number + 1)
        logits = asked.ask(one)
        lines.append(
            {
                "text": _text(one.texts[0]),
                **({} if one.text_pairs is None else {"text_pair": _text(one.text_pairs[0])}),
                "input_ids": one.tokens["input_ids"][0].tolist(),
                "token_type_ids": one.tokens["token_type_ids"][0].tolist(),
                "logits": logits[0].tolist(),
                "label": task_of(classifier.task).label_texts(logits, classifier.labels, classifier.decision)[0],
            }
        )
    write_text(golden, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read(path: Path) -> tuple[dict[str, Any], Requests, np.ndarray]:
    """Reads a golden file: its head, the requests, the logits of the answers.

    Raises:
      InputError: the file is no golden file.
    """
    try:
        head, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}, {FORMAT} expected")
        limits = head["limits"]
        if not isinstance(limits, dict) or not limits or not LIMITS.issuperset(limits):
            raise ValueError(f"limits {limits}, any of {', '.join(sorted(LIMITS))} expected")
        if not all(type(limit) in (int, float) and math.isfinite(limit) for limit in limits.values()):
            raise ValueError(f"limits {limits}, finite numbers expected")
        share = head.get("saturating_sums", 0.0)  # a newer key than the others
        if type(share) not in (int, float) or not 0.0 <= share <= 1.0:
            raise ValueError(f"saturating_sums {share}, a share expected")
        missing = {"task", "recorded_on", "tfpipe"} - head.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))} in its first line")
        longest = max(len(line["input_ids"]) for line in lines)
        tokens = {name: np.zeros((len(lines), longest), np.int32) for name in INFERENCE_INPUTS}
        for row, line in enumerate(lines):
            length, ids = len(line["input_ids"]), [*line["input_ids"], *line["token_type_ids"]]
            if len(ids) != 2 * length or not all(type(each) is int and each >= 0 for each in ids):
                raise ValueError(f"token ids of request {row + 1}")
            tokens["input_ids"][row, :length] = line["input_ids"]
            tokens["token_type_ids"][row, :length] = line["token_type_ids"]
            tokens["attention_mask"][row, :length] = 1
        pairs = [_bytes(line["text_pair"]) for line in lines] if "text_pair" in lines[0] else None
        requests = Requests(tokens, [_bytes(line["text"]) for line in lines], pairs)
        logits = np.array([line["logits"] for line in lines], np.float32)
        if head["task"] not in TASKS:
            raise ValueError(f"task {head['task']}")
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError("logits of fewer than two labels")
        decision_of(head)
        return head, requests, logits
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: not a golden file of tfpipe ({' '.join(str(reason).split())}); "
            "give the directory of an exported artifact"
        ) from error


def decision_of(head: dict[str, Any]) -> Decision:
    """Reads the rule of the answers from the head of a golden file; a file of an older tfpipe has the plain rule.

    Raises:
      ValueError: the rule is malformed.
    """
    return Decision.read(head, head.get("labels", ()))


def exceeded(found: dict[str, float], head: dict[str, Any]) -> list[str]:
    """Lists the limits of a golden file that are not kept, one phrase each; NaN keeps none."""
    return [
        f"{name} is {found[name]:.3g}, {'at least' if name == 'label_agreement' else 'at most'} {limit:g} allowed"
        for name, limit in head["limits"].items()
        if not (found[name] >= limit if name == "label_agreement" else found[name] <= limit)
    ]


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _bytes(value: str | dict[str, str]) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])
