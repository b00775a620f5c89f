#!/usr/bin/env bash
# With transformers 5, a BERT whose tokenizer_class is PreTrainedTokenizerFast reads pairs without token types.
#
# Expected: the folder of a BERT for pairs gives the same inputs with transformers 4 and 5. The post-processor in its
# tokenizer.json gives the second text type 1.
# Seen (transformers 4.53.3 and 5.24.0): 4 gives input_ids, token_type_ids and attention_mask. 5 gives no
# token_type_ids, without a word, and the model then takes type 0 for both texts: another answer from the same folder.
# The types are still made, but dropped: the default of model_input_names has lost them. Tokenizers that were
# trained with the tokenizers library are usually saved under this class. What 5 saves has its new name,
# TokenizersBackend, and no model_input_names either; adding these to tokenizer_config.json brings the types back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/pairs.py" <<'PY'
import json
import pathlib
import sys

import tokenizers
from transformers import AutoTokenizer, __version__

folder = pathlib.Path(sys.argv[1], "encoder")
folder.mkdir(exist_ok=True)
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
vocabulary = {word: index for index, word in enumerate([*special, "good", "film"])}
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
tokenizer.add_special_tokens(special)
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text('{"model_type": "bert"}')
config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
names = ["input_ids", "token_type_ids", "attention_mask"]
found = []
for more in ({}, {"model_input_names": names}):
    (folder / "tokenizer_config.json").write_text(json.dumps(config | more))
    inputs = dict(AutoTokenizer.from_pretrained(folder)("good", "film"))
    print(__version__, more, inputs, flush=True)
    found.append(inputs.get("token_type_ids"))
types = [0, 0, 0, 1, 1]
as_before = found == [None if __version__.startswith("5.") else types, types]
print("as before" if as_before else "transformers has changed", flush=True)
sys.exit(not as_before)
PY
python3 -m venv "$folder/4" && python3 -m venv "$folder/5"
"$folder/4/bin/pip" install --quiet --disable-pip-version-check transformers==4.53.3 tokenizers==0.21.4
"$folder/5/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
for version in 4 5; do
    "$folder/$version/bin/python" "$folder/pairs.py" "$folder" 2>/dev/null
done
