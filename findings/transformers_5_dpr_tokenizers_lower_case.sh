#!/usr/bin/env bash
# With transformers 5, DPR's tokenizers lower-case texts and strip accents, whatever do_lower_case says.
#
# Expected: DPRQuestionEncoderTokenizer and DPRContextEncoderTokenizer are BertTokenizer under other names, as their
# documentation says and as they are in transformers 4. A folder of a cased encoder, with "do_lower_case": false in its
# tokenizer_config.json, gives cased pieces.
# Seen (transformers 4.53.3 and 5.24.0): 4 gives ['Paris', 'École'] with all three classes. 5 gives this with
# BertTokenizer and ['paris', 'ecole'] with DPR's two: their constructor takes do_lower_case for itself and does not
# hand it on. No warning is shown. With a cased vocabulary most words with a capital letter become other pieces or [UNK].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/pieces.py" <<'PY'
import json
import pathlib
import sys

from transformers import AutoTokenizer, __version__

folder = pathlib.Path(sys.argv[1], "encoder")
folder.mkdir(exist_ok=True)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", "École", "ecole"]
(folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
(folder / "config.json").write_text('{"model_type": "bert"}')
found = {}
for name in ("BertTokenizer", "DPRQuestionEncoderTokenizer", "DPRContextEncoderTokenizer"):
    config = {"tokenizer_class": name, "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found[name] = AutoTokenizer.from_pretrained(folder).tokenize("Paris École")
    print(__version__, name, found[name], flush=True)
cased, lower = ["Paris", "École"], ["paris", "ecole"]
bert, *dpr = found.values()
as_before = bert == cased and dpr == [lower if __version__.startswith("5.") else cased] * 2
print("as before" if as_before else "transformers has changed", flush=True)
sys.exit(not as_before)
PY
python3 -m venv "$folder/four"
"$folder/four/bin/pip" install --quiet --disable-pip-version-check transformers==4.53.3
"$folder/four/bin/python" "$folder/pieces.py" "$folder" 2>/dev/null
python3 -m venv "$folder/five"
"$folder/five/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
"$folder/five/bin/python" "$folder/pieces.py" "$folder" 2>/dev/null
