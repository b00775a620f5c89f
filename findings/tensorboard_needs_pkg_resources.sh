#!/usr/bin/env bash
# The command `tensorboard` does not start where setuptools is of this year: it imports a module that is gone.
#
# Expected: tensorboard 2.20.0 requires setuptools>=41.0.0, so it runs with any newer one.
# Seen (tensorboard 2.20.0, setuptools 82.0.0 and 84.2.1, CPython 3.11): `import pkg_resources` in tensorboard/default.py
# and tensorboard/data/server_ingester.py raises ModuleNotFoundError, as setuptools 82 has removed that module. With
# setuptools 81 it starts. Its readers of event files (tensorboard.backend) need no such module.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
install tensorboard==2.20.0
for version in 84.2.1 82.0.0 81.0.0; do
	install setuptools==$version
	if "$folder/venv/bin/tensorboard" --version >/dev/null 2>"$folder/error"; then
		said=starts
	else
		said=$(tail -n 1 "$folder/error")
	fi
	echo "setuptools $version: $said"
done | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "tensorboard or setuptools has changed"; exit 1; }
setuptools 84.2.1: ModuleNotFoundError: No module named 'pkg_resources'
setuptools 82.0.0: ModuleNotFoundError: No module named 'pkg_resources'
setuptools 81.0.0: starts
SEEN
