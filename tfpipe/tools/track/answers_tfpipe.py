"""Answers of any artifact of tfpipe, for `mlflow.pyfunc`: as `tfpipe predict` gives them.

This file goes along with a model that `answers_onnx.py` can't answer: a model of another format than ONNX, or whose
texts tfpipe cleans. It needs tfpipe.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from tfpipe.errors import InputError
from tfpipe.tools.predict.model import open_model
from tfpipe.tools.predict.shown import answers_of


def _load_pyfunc(data_path: str) -> Classifier:
    """Opens an artifact: MLflow calls it."""
    return Classifier(data_path)


class Classifier:
    """An artifact in its runtime."""

    def __init__(self, folder: str):
        """Loads the artifact."""
        self._answerer = open_model(folder, None, None, many=True).answerer

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answers texts.

        Args:
          model_input: columns `text`, and `text_pair` for a model of pairs.
          params: none are known.

        Returns:
          Columns `label`, `probability`, `probabilities` (name -> probability); of a model of several labels, `labels`
          too.

        Raises:
          ValueError: a value is no text.
        """
        columns = [list(model_input[name]) for name in ("text", *(["text_pair"] * self._answerer.pairs))]
        for text in (text for column in columns for text in column):
            if not isinstance(text, str):
                raise InputError(
                    f"a text is {type(text).__name__}, expected a text; give a DataFrame with a row for each text, or "
                    'a list such as [{"text": "a small gem"}]'
                )
        pairs = columns[1] if self._answerer.pairs else None
        answers = self._answerer.answer(self._answerer.prepare(columns[0], pairs))
        return pd.DataFrame(list(answers_of(self._answerer, answers)), index=model_input.index)
