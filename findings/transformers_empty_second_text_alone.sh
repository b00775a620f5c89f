#!/usr/bin/env bash
# transformers' fast tokenizers take an empty second text for none, but only outside of a batch.
#
# Expected: a pair has the same ids alone and in a batch of one. With an empty second text, these are [CLS] A [SEP]
# [SEP], which BERT's slow tokenizer of transformers 4 gives either way.
# Seen (transformers 4.57.6 and 5.24.0): tokenizer("good", "") gives [CLS] good [SEP], and tokenizer(["good"], [""]) a
# second [SEP]. A single pair is a pair only if its second text is true, as Python has it. So a row whose second column
# is empty has other inputs in a loop or a pipeline than in the batches that a model was trained on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/pairs.py" <<'PY'
import pathlib
import sys

from transformers import BertTokenizerFast, __version__

path = pathlib.Path(sys.argv[1], "vocab.txt")
path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\n")
tokenizer = BertTokenizerFast(str(path))
alone, batch = tokenizer("good", "")["input_ids"], tokenizer(["good"], [""])["input_ids"][0]
print(__version__, alone, batch, flush=True)
as_before = (alone, batch) == ([2, 5, 3], [2, 5, 3, 3])
print("as before" if as_before else "transformers has changed", flush=True)
sys.exit(not as_before)
PY
for version in 4.57.6 5.24.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/$version/bin/python" "$folder/pairs.py" "$folder" 2>/dev/null
done
