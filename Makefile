# Everything happens in .venv, so that it works where installing into the system's Python is refused.
PYTHON ?= python3
BIN := .venv/bin

# What the environment for development has of tuner's extras.
EXTRAS := local math otel postgres ray report serve service dev
COMPILE := .venv/tools/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --custom-compile-command 'make lock' --python-version 3.11 --python-platform x86_64-unknown-linux-gnu

.PHONY: quickstart test fast check faults fuzz format lock audit clean

quickstart: .venv/local
	$(BIN)/tuner run studies/quickstart.yaml
	$(BIN)/tuner export studies/quickstart.yaml --rule max-accuracy --out best.yaml

test: .venv/dev
	$(BIN)/pytest

fast: .venv/dev
	$(BIN)/pytest -m 'not slow'

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: .venv/dev
	FAULT_KILLS=13 $(BIN)/pytest tests/faults

fuzz: .venv/dev
	FUZZ=full $(BIN)/pytest -m fuzz tests/fuzz

format: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.venv/local: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

.venv/dev: pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Keeps the versions that requirements/*.txt have, where pyproject.toml allows them; without those files, the newest.
lock: .venv/tools/ready
	$(COMPILE) pyproject.toml requirements/dev.in $(EXTRAS:%=--extra %) --output-file requirements/dev.txt
	$(COMPILE) requirements/tools.in --output-file requirements/tools.txt

audit: .venv/tools/ready
	@.venv/tools/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement requirements/dev.txt || \
		{ echo "audit: packages with known vulnerabilities are listed above; without a list, the database was not reached" >&2; exit 1; }

.venv/tools/ready: requirements/tools.txt
	$(PYTHON) -m venv .venv/tools
	.venv/tools/bin/pip install --quiet --require-hashes --requirement requirements/tools.txt
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
