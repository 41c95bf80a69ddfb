# Each target sets up what it needs first: any of them works as the first command on a new machine.
.PHONY: run test check bench format setup

run:
	@scripts/setup run
	@.venv/bin/carrel up --claim desktop

test: setup
	.venv/bin/pytest

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup
	.venv/bin/carrel bench
	.venv/bin/python -m benchmarks.fleet

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

setup:
	@scripts/setup dev
