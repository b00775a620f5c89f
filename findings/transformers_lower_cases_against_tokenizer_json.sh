#!/usr/bin/env bash
# transformers lower-cases with a cased BERT tokenizer.json, unless tokenizer_config.json repeats that it is cased.
#
# Expected: tokenizer.json is the whole tokenizer, and a folder that holds it gives the same ids in every program.
# Seen (transformers 4.53.3 with tokenizers 0.21.4, and 5.24.0 with tokenizers 0.23.3): the normalizer of
# tokenizer.json has "lowercase": false. AutoTokenizer of both versions gives ['paris', 'ecole'] where
# tokenizer_config.json has no do_lower_case, or is not there: the class BertTokenizer has true as its default and
# rebuilds the normalizer from it, without a warning. The tokenizers library, on the same file, gives ['Paris', 'École'],
# and so does whatever is built on it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cased.py" <<'PY'
import json
import pathlib
import sys

import tokenizers
from transformers import AutoTokenizer, __version__

folder = pathlib.Path(sys.argv[1], "encoder")
folder.mkdir(exist_ok=True)
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
vocabulary = {word: index for index, word in enumerate([*special, "Paris", "paris", "École", "ecole"])}
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
tokenizer.add_special_tokens(special)
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text('{"model_type": "bert"}')
text, cased, lower = "Paris École", ["Paris", "École"], ["paris", "ecole"]
found = {"tokenizers": tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).tokens}
for name, config in {
    "no tokenizer_config.json": None,
    "no do_lower_case": {"tokenizer_class": "BertTokenizer"},
    "do_lower_case false": {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
}.items():
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found[name] = AutoTokenizer.from_pretrained(folder).tokenize(text)
for name, pieces in found.items():
    print(__version__, f"{name}:", pieces, flush=True)
as_before = list(found.values()) == [cased, lower, lower, cased]
print("as before" if as_before else "transformers has changed", flush=True)
sys.exit(not as_before)
PY
python3 -m venv "$folder/4" && python3 -m venv "$folder/5"
"$folder/4/bin/pip" install --quiet --disable-pip-version-check transformers==4.53.3 tokenizers==0.21.4
"$folder/5/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
for version in 4 5; do
    "$folder/$version/bin/python" "$folder/cased.py" "$folder" 2>/dev/null
done
