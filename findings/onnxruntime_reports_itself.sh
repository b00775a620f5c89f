#!/usr/bin/env bash
# `import onnxruntime` makes an identity in the home directory and keeps events about the process for Microsoft.
#
# Expected: importing a library for inference writes no file. On Linux, ONNX Runtime had no telemetry.
# Seen (onnxruntime 1.32.0, CPython 3.11, Linux): the import alone makes a random device identity and a queue of events
# below ~/.cache/Microsoft/DeveloperTools/.onnxruntime, with the processor, the distribution and the path of the Python
# program. The library carries the client that sends them; here, without a network, none left the queue.
# onnxruntime.disable_telemetry_events() comes after the import, and so too late for both files. With
# ORT_DISABLE_TELEMETRY=1 in the environment nothing is written, and where CI is set neither: tests do not see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 2>/dev/null
import() { # name, program, variables
	mkdir "$folder/$1"
	env -i HOME="$folder/$1" PATH="$PATH" https_proxy=http://127.0.0.1:9 "${@:3}" "$folder/venv/bin/python" -c "$2" 2>/dev/null
	echo "$1: $(cd "$folder/$1" && find . -type f -printf '%f\n' | sort | tr '\n' ' ')"
}
{
	import plain "import onnxruntime"
	import off_after_the_import "import onnxruntime; onnxruntime.disable_telemetry_events()"
	import off_by_the_environment "import onnxruntime" ORT_DISABLE_TELEMETRY=1
	import in_ci "import onnxruntime" CI=true
} | tee "$folder/seen"
database=$folder/plain/.cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db
events=$(python3 -c "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from events').fetchone()[0])" "$database")
echo "events in the queue: $events"
diff "$folder/seen" - <<'SEEN' || { echo "ONNX Runtime has changed"; exit 1; }
plain: deviceid onnxruntime.db 
off_after_the_import: deviceid onnxruntime.db 
off_by_the_environment: 
in_ci: 
SEEN
[[ $events -gt 0 ]] || { echo "ONNX Runtime has changed"; exit 1; }
