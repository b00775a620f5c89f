"""What is sent between machines arrives as it was, and can't be made to run anything."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from tfpipe.data.block import Rejection
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import ROW
from tfpipe.data.runners.transport import from_bytes, to_bytes
from tfpipe.data.survey import STRATUM, BlockSurvey


def survey():
    strata = np.zeros(3, STRATUM)
    strata["label"], strata["position"] = 2**64 - 1, 0.1
    return BlockSurvey(
        accepted=3,
        given={0, 2},
        filtered=1,
        filter_values={"lang": ["en"]},
        rejections=[Rejection("f", 7, "why", "…", "good")],
        label_values=Counter({(-1, ("good",)): 2, (0, ("b\udcff", "good")): 1}),
        without_label=Counter({2: 1}),
        unlabeled=1,
        strata=strata,
        size_bytes=99,
    )


def test_a_survey_arrives_as_it_was():
    sent, found = survey(), from_bytes(to_bytes(survey()))
    assert found.strata.dtype == STRATUM and np.array_equal(found.strata, sent.strata)
    for field in fields(BlockSurvey):
        if field.name != "strata":
            assert getattr(found, field.name) == getattr(sent, field.name), field.name
    assert type(found.label_values) is Counter


def test_tables_and_rows_arrive_as_they_were():
    batch = pa.record_batch({"input_ids": [[1, 2], [3]], "text": ["a", None]})
    counts, rows = Counts(rows=Counter(train=2)), np.zeros(2, ROW)
    rows["digest"], rows["split"] = 2**64 - 1, [0, 2]
    tables, sent, found = from_bytes(to_bytes(({"train": batch}, rows, counts)))
    assert tables["train"].equals(batch) and found == counts
    assert sent.dtype == ROW and np.array_equal(sent, rows)
    assert from_bytes(to_bytes(Counter({2**63 + 1: 4}))) == Counter({2**63 + 1: 4})
    assert from_bytes(to_bytes({3: (0.1, 1 / 3)})) == {3: (0.1, 1 / 3)}


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_pickle_is_not_opened(tmp_path):
    marker = tmp_path / "ran"
    arrays = io.BytesIO()
    np.savez(arrays, tree=np.array([Evil(marker)], object))
    for content in (pickle.dumps(Evil(marker)), arrays.getvalue()):
        with pytest.raises(ValueError, match=r"allow_pickle|pickle"):
            from_bytes(content)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()


def test_what_is_not_expected_is_neither_sent_nor_made(tmp_path):
    with pytest.raises(TypeError, match="Evil can't be sent"):
        to_bytes([Evil(tmp_path)])
    forged = io.BytesIO()
    np.savez(forged, tree=np.frombuffer(b'{"Popen": []}', np.uint8))
    with pytest.raises(ValueError, match="'Popen' is no kind"):
        from_bytes(forged.getvalue())
