"""Measures of a classifier: one definition for training, verification, the budget and the report.

scores         a split in numbers: accuracy, F1, AUROC, calibration, …; of all labels and of each
curves         precision over recall
intervals      how sure a number is: Wilson, bootstrap, paired changes, McNemar's test with Holm's correction
differences    how far answers are from a reference's

Everything takes NumPy arrays of a whole split and answers in plain floats.
"""

from tfpipe.metrics.curves import precision_recall
from tfpipe.metrics.differences import differences, scaled_difference
from tfpipe.metrics.intervals import bootstrap, holm, mcnemar, paired_change, wilson_interval
from tfpipe.metrics.scores import (
    LOWER_IS_BETTER,
    RANKS,
    SCORES,
    SHOWN,
    by_label,
    confusion,
    correct,
    counts_of,
    evaluate,
    from_counts,
    is_better,
    most_confused,
    reliability,
)

__all__ = [
    "LOWER_IS_BETTER",
    "RANKS",
    "SCORES",
    "SHOWN",
    "bootstrap",
    "by_label",
    "confusion",
    "correct",
    "counts_of",
    "differences",
    "evaluate",
    "from_counts",
    "holm",
    "is_better",
    "mcnemar",
    "most_confused",
    "paired_change",
    "precision_recall",
    "reliability",
    "scaled_difference",
    "wilson_interval",
]
