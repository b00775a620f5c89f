#!/usr/bin/env bash
# A slice of a pyarrow batch takes the bytes of the whole batch when it is pickled.
#
# Expected: 10 of 100,000 rows, sent to another process, take the bytes of 10 rows.
# Seen (pyarrow 26.0.1, and 25.0.1 alike; CPython 3.11, Linux): 10 rows take 10.4 MB, as many as all 100,000. A program that cuts a
# batch into parts for a pool of processes sends the whole with each part: bytes grow with the square of the rows. A
# copy of the part (concat_arrays of the one array, or take) has its own rows alone, and takes 1.3 KB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PY'
import pickle
import sys

import pyarrow as pa

batch = pa.record_batch({"text": ["x" * 100] * 100_000})
part = batch.slice(5, 10)
copy = pa.record_batch([pa.concat_arrays([part.column(0)])], names=["text"])
sizes = [len(pickle.dumps(each)) for each in (batch, part, copy)]
print(*sizes)
if not (sizes[1] > 0.99 * sizes[0] > 1000 * sizes[2]):
    sys.exit("other sizes: pyarrow has changed")
PY
