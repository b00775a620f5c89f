#!/usr/bin/env bash
# transformers.js cuts a long text after the special tokens are added, and so cuts the last [SEP] off.
#
# Expected: one folder of a BERT tokenizer gives the same ids for a long text in Python and in JavaScript, as it does for
# a short one.
# Seen (@huggingface/transformers 4.3.1; transformers 4.57.6 with tokenizers 0.22.2), with model_max_length 6 and
# truncation on: both give [CLS] film [SEP] for "film". For ten words, Python gives [CLS] film film film film [SEP], and
# JavaScript [CLS] film film film film film. A classifier then answers otherwise, and nothing is said.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.6 tokenizers==0.22.2
npm install --silent --no-save --ignore-scripts --prefix "$folder" @huggingface/transformers@4.3.1 >/dev/null
cat >"$folder/make.py" <<'PY'
import json
import pathlib
import sys

import tokenizers
from transformers import AutoTokenizer

folder = pathlib.Path(sys.argv[1], "encoder")
folder.mkdir()
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
vocabulary = {word: index for index, word in enumerate([*special, "film"])}
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
tokenizer.add_special_tokens(special)
tokenizer.save(str(folder / "tokenizer.json"))
config = {"tokenizer_class": "BertTokenizer", "model_max_length": 6}
(folder / "tokenizer_config.json").write_text(json.dumps(config))
(folder / "config.json").write_text('{"model_type": "bert"}')
print(json.dumps(AutoTokenizer.from_pretrained(folder)(["film", "film " * 10], truncation=True)["input_ids"]))
PY
cat >"$folder/ask.mjs" <<'JS'
import { AutoTokenizer, env } from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const tokenizer = await AutoTokenizer.from_pretrained("encoder");
const ids = (text) => Array.from(tokenizer(text, { truncation: true }).input_ids.data, Number);
console.log(JSON.stringify([ids("film"), ids("film ".repeat(10))]));
JS
python=$("$folder/venv/bin/python" "$folder/make.py" "$folder" 2>/dev/null)
javascript=$(node "$folder/ask.mjs" "$folder/")
printf 'Python      %s\nJavaScript  %s\n' "$python" "$javascript"
[ "${python// /}" = "[[2,5,3],[2,5,5,5,5,3]]" ] && [ "$javascript" = "[[2,5,3],[2,5,5,5,5,5]]" ] && echo "as before"
