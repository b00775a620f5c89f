#!/usr/bin/env bash
# onnxruntime-extensions' BertTokenizer makes other tokens of words with an unknown letter, and of most accents.
#
# Expected: an ONNX graph with BertTokenizer, which gen_processing_models writes for a BERT tokenizer, gives the ids of
# that tokenizer.
# Seen (onnxruntime-extensions 0.15.2 with onnxruntime 1.32.0; tokenizers 0.22.2): a word with a letter that no piece has
# is one [UNK] to BERT. The operator keeps the pieces before that letter, and puts [UNK] behind them. It also takes accents
# off the letters of Latin-1 alone: the Vietnamese "tiếng", the Russian "й" and the Greek "ά" stay unknown. It
# takes no batch: two texts are a pair, three are an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  onnx==1.23.2 onnxruntime==1.32.0 onnxruntime-extensions==0.15.2 tokenizers==0.22.2
cat >"$folder/compare.py" <<'PY'
import onnxruntime
import onnxruntime_extensions
import tokenizers
from onnx import TensorProto, helper

pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "##s", "tie", "##ng", "и", "α"]
bert = tokenizers.Tokenizer(tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
bert.normalizer = tokenizers.normalizers.BertNormalizer()
bert.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
bert.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

domain, outputs = "ai.onnx.contrib", ["input_ids", "token_type_ids", "attention_mask"]
settings = {"vocab_file": "\n".join(pieces), "do_lower_case": 1, "strip_accents": 1}
node = helper.make_node("BertTokenizer", ["text"], outputs, domain=domain, **settings)
graph = helper.make_graph(
    [node],
    "tokenizer",
    [helper.make_tensor_value_info("text", TensorProto.STRING, [None])],
    [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in outputs],
)
versions = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
model = helper.make_model(graph, opset_imports=versions, ir_version=8)
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
options.log_severity_level = 4
session = onnxruntime.InferenceSession(model.SerializeToString(), options)


def tokens(text):
    (ids,) = session.run(["input_ids"], {"text": [text]})
    return [pieces[each] for each in ids[1:-1]]


differ = []
for text in ("films", "film", "film\N{GRINNING FACE}", "films\N{SNOWMAN}", "tiếng", "й", "ά"):
    wanted, found = bert.encode(text).tokens[1:-1], tokens(text)
    print(f"{text}: tokenizers {' '.join(wanted)}, onnxruntime-extensions {' '.join(found)}")
    differ.append(wanted != found)
try:
    session.run(None, {"text": ["film", "film", "film"]})
    differ.append(False)
except Exception as error:
    print(f"three texts: {str(error).splitlines()[0][-60:]}")
    differ.append("only support one or two query" in str(error))
raise SystemExit(differ != [False, False, True, True, True, True, True, True])
PY
"$folder/venv/bin/python" "$folder/compare.py" && echo "as before"
