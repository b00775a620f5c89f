#!/usr/bin/env bash
# A library for experiment records calls its makers: the import of MLflow leaves an identity, the first entry reports it.
#
# Expected: a client writes to the server that it is given, and nothing else leaves the machine.
# Seen (mlflow-skinny 3.17.2 with SQLAlchemy, CPython 3.11): `import mlflow` writes a random identity to
# ~/.config/mlflow/telemetry.json. Where a local entry is made, it asks config.mlflow-telemetry.io where to report. Here
# a proxy that answers nothing keeps it from that. MLFLOW_DISABLE_TELEMETRY=true in front of the import ends both, as
# MLflow's documentation says. The variables CI and PYTEST_CURRENT_TEST end it too: tests do not see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 mlflow==3.17.2 2>/dev/null
cat >"$folder/watch.py" <<'PY'
import os
import pathlib
import socket
import subprocess
import sys
import threading

folder, name, *more = sys.argv[1:]
home = pathlib.Path(folder) / name
home.mkdir()
proxy, asked = socket.create_server(("127.0.0.1", 0)), set()


def listen():
    while True:
        connection, _ = proxy.accept()
        asked.add(connection.recv(200).split()[1].decode())
        connection.close()


threading.Thread(target=listen, daemon=True).start()
address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
environment = {"HOME": str(home), "PATH": os.environ["PATH"], "http_proxy": address, "https_proxy": address}
program = """
import mlflow, time
mlflow.set_tracking_uri("sqlite:///entries.db")
mlflow.start_run()
mlflow.end_run()
time.sleep(3)
"""
environment |= dict(each.split("=") for each in more)
subprocess.run([sys.executable, "-c", program], env=environment, cwd=home, check=True, capture_output=True)
files = sorted(str(path.relative_to(home)) for path in (home / ".config").rglob("*.json"))
print(f"{name}: asks {', '.join(sorted(asked)) or 'nobody'}; writes {', '.join(files) or 'nothing'}")
PY
{
	"$folder/venv/bin/python" "$folder/watch.py" "$folder" plain
	"$folder/venv/bin/python" "$folder/watch.py" "$folder" off MLFLOW_DISABLE_TELEMETRY=true
} | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "MLflow has changed"; exit 1; }
plain: asks config.mlflow-telemetry.io:443; writes .config/mlflow/telemetry.json
off: asks nobody; writes nothing
SEEN
