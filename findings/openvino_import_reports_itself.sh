#!/usr/bin/env bash
# `import openvino` sends an event to Google Analytics and leaves an identity in the home directory.
#
# Expected: importing a library for inference writes no file and opens no connection; telemetry, if any, belongs to its
# conversion tools.
# Seen (openvino 2026.4.1, openvino-telemetry 2025.2.0, which it requires): the import alone makes a file with a random
# client identity below ~/intel, and hands the event "import, general_import" to a sender, whose address is that of Google
# Analytics 4. No dialog asks; `opt_in_out --opt_out` ends it. Where openvino_telemetry can't be imported, OpenVINO takes
# a stand-in of its own that does neither. Here a closed proxy keeps anything from being sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 openvino-telemetry==2025.2.0
mkdir "$folder/plain" "$folder/absent"
import() { # HOME of the process, what it does first
  env -i HOME="$folder/$1" PATH="$PATH" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9 \
    "$folder/venv/bin/python" -c "$2; import openvino, openvino.tools.ovc as ovc; print(type(ovc.telemetry).__module__)"
}
plain=$(import plain "pass")
absent=$(import absent "import sys; sys.modules['openvino_telemetry'] = None")
echo "telemetry of a plain import: $plain; files: $(cd "$folder/plain" && find . -type f | sort | tr '\n' ' ')"
echo "telemetry where the package is absent: $absent; files: $(cd "$folder/absent" && find . -type f | wc -l)"
[[ $plain == openvino_telemetry.main && -n $(find "$folder/plain" -type f) ]]
[[ $absent == openvino.tools.ovc.telemetry_stub && -z $(find "$folder/absent" -type f) ]]
echo "as before"
