# Everything happens in .venv, so that it works where installing into the system's Python is refused.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check format clean

quickstart: .venv/local
	$(BIN)/tuner run studies/quickstart.yaml
	$(BIN)/tuner export studies/quickstart.yaml --rule max-accuracy --out best.yaml

test: .venv/dev
	$(BIN)/pytest

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.venv/local: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[local,math,otel,postgres,ray,report,serve,service,dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
