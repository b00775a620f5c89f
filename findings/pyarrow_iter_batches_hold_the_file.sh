#!/usr/bin/env bash
# pyarrow's ParquetFile.iter_batches holds all row groups that it has passed, unless pre_buffer=False is given.
#
# Expected: a file of 20 row groups, read batch by batch with nothing kept, takes the memory of one or two of them.
# Seen (pyarrow 25.0.1; CPython 3.11, Linux): with the defaults the peak is about the size of the whole file (400 MB for 400 MB in 20
# groups of 20 MB); with pre_buffer=False it is less than a quarter of it. The default of pre_buffer is True. `buffer_size`
# alone changes nothing: it only counts where pre_buffer is False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==25.0.1
cat > "$folder/read.py" <<'PY'
import os
import resource
import sys

import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
if not os.path.exists(path):
    with pq.ParquetWriter(path, pa.schema([("data", pa.binary())]), compression="none", use_dictionary=False) as writer:
        for _ in range(20):
            writer.write_table(pa.table({"data": [os.urandom(100_000) for _ in range(200)]}))
    sys.exit()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


options = {name: int(value) for name, _, value in (each.partition("=") for each in sys.argv[2:])}
reader, before = pq.ParquetFile(path, **options), peak()
for batch in reader.iter_batches(10):
    del batch
print(f"{(peak() - before) / os.path.getsize(path):.2f}")
PY
python="$folder/venv/bin/python"
"$python" "$folder/read.py" "$folder/x.parquet"
default=$("$python" "$folder/read.py" "$folder/x.parquet")
buffered=$("$python" "$folder/read.py" "$folder/x.parquet" buffer_size=1048576)
without=$("$python" "$folder/read.py" "$folder/x.parquet" pre_buffer=0)
both=$("$python" "$folder/read.py" "$folder/x.parquet" pre_buffer=0 buffer_size=1048576)
echo "peak as a part of the file: default $default, buffer_size $buffered, pre_buffer=False $without, both $both"
"$python" -c "
import sys
default, buffered, without, both = map(float, sys.argv[1:])
if not (default > 0.8 and buffered > 0.8 and without < 0.3 and both < 0.3):
    sys.exit('other peaks: pyarrow has changed')
" "$default" "$buffered" "$without" "$both"
