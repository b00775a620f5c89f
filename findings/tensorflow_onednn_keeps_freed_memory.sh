#!/usr/bin/env bash
# TensorFlow 2.20.0 on an x86 processor, where oneDNN is on: memory of tensors that are gone stays with the process.
#
# Its allocator for processors (MklCPUAllocator, a BFCAllocator that may grow) takes memory in blocks, each twice as
# large as the one before, and never gives one back; malloc_trim finds them in use. Sixty tensors of 16 MiB, made and
# dropped, leave about 1,024 MiB. With TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 large tensors come from malloc, and what is left
# is a few MiB.
#
# Guess before: what is freed in Python is returned, or at least after malloc_trim.
# Seen: "blocks: 1024 MiB held, 1024 MiB after they are gone" and "malloc: 960 MiB held, 0 MiB after they are gone"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-cpu==2.20.0
cat >"$folder/keep.py" <<'PYTHON'
import ctypes, gc, os, sys
import tensorflow as tf

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

tf.random.stateless_uniform([8], [1, 2])  # what TensorFlow needs itself
before = resident()
tensors = [tf.random.stateless_uniform([2**22], [1, number]) for number in range(60)]
held = resident() - before
del tensors
left = resident() - before
print(f"{sys.argv[1]}: {held:.0f} MiB held, {left:.0f} MiB after they are gone")
assert held > 900, held
assert (left > 900) if sys.argv[1] == "blocks" else (left < 100), left
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
"$folder/venv/bin/python" "$folder/keep.py" blocks
TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 "$folder/venv/bin/python" "$folder/keep.py" malloc
