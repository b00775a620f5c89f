#!/bin/bash
# Argilla: a record's JSON does not say which of its answers were submitted.
#
# Versions: argilla 2.8.0 (with requests 2.34.2, which it imports and does not ask for), CPython 3.11.
# Expected: an annotator's answer has a status (draft, submitted, discarded), and what `Record.to_dict()` returns, which
#   `dataset.records.to_json()` writes, keeps it beside the answer.
# Seen: `{"value": "neg", "user_id": "..."}`: a draft and a discarded answer look like a submitted one. The flat form,
#   which `to_list(flatten=True)` and `to_datasets()` give, has the statuses in a list of their own.
# Consequence: whoever reads the JSON takes answers for labels that the annotator put aside. Only the flat form tells.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check argilla==2.8.0 requests==2.34.2 2>/dev/null
cat > "$folder/check.py" <<'EOF'
import argilla
from argilla.records._io import GenericIO

answers = {"submitted": "pos", "draft": "neg", "discarded": "neg"}
responses = [
    argilla.Response("mood", value, user_id=f"00000000-0000-4000-8000-00000000000{n}", status=status)
    for n, (status, value) in enumerate(answers.items())
]
record = argilla.Record(fields={"text": "a fine day"}, responses=responses)
written = record.to_dict()["responses"]["mood"]
(flat,) = GenericIO.to_list([record], flatten=True)
print("to_dict:", [sorted(answer) for answer in written], [answer["value"] for answer in written])
print("flat:", flat["mood.responses"], flat["mood.responses.status"])
assert [sorted(answer) for answer in written] == [["user_id", "value"]] * 3
assert [answer["value"] for answer in written] == ["pos", "neg", "neg"]
assert flat["mood.responses.status"] == ["submitted", "draft", "discarded"]
EOF
"$folder/venv/bin/python" "$folder/check.py"
# Output:
#   to_dict: [['user_id', 'value'], ['user_id', 'value'], ['user_id', 'value']] ['pos', 'neg', 'neg']
#   flat: ['pos', 'neg', 'neg'] ['submitted', 'draft', 'discarded']
