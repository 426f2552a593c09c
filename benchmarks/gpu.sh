#!/bin/sh
# Serves a small model on this machine's GPU and measures what direct, cot and react cost a question: benchmarks/gpu.sh --help
set -eu
cd "$(dirname "$0")/.."
make --quiet .venv/local
exec .venv/bin/python benchmarks/gpu.py "$@"
