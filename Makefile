# Each command makes its own environment in .venv, once. Another place: make test VENV=/elsewhere
# Another Python: make test PYTHON=python3.12        More options: make test ARGS="-k identity"
PYTHON = python3
VENV = .venv
ARGS =
# Processes that test; a file's tests stay in one, for what they share.    One after the other: make test JOBS=0
JOBS = auto

help:
	@echo "make demo    grow the tiny model that comes along, prove it the same, generate with both, train what is new"
	@echo "make test    every test that needs no GPU and no network"
	@echo "make check   lint, formatting, types"
	@echo "make readme  rewrite the tables in README.md that are made from data"
	@echo "make clean   remove caches and build output; .venv stays"

demo: environment
	"$(VENV)/bin/grow" demo --output grow-demo --overwrite $(ARGS)

# -P: pytest must not put the clone itself on sys.path, where `surgery` would be a second copy of modelgrow.surgery.
test: environment
	"$(VENV)/bin/python" -P -m pytest -n $(JOBS) --maxprocesses=8 --dist=loadfile $(ARGS)

# Type checkers do not run import hooks, so they find the editable install through a link.
check: environment-dev
	mkdir -p .types && ln -sfn .. .types/modelgrow
	"$(VENV)/bin/python" -m ruff check
	"$(VENV)/bin/python" -m ruff format --check
	"$(VENV)/bin/python" -m mypy

readme: environment
	"$(VENV)/bin/python" tests/readme.py

environment:
	@$(PYTHON) .ci/environment.py "$(VENV)" test

environment-dev:
	@$(PYTHON) .ci/environment.py "$(VENV)" test dev

clean:
	rm -rf build dist ./*.egg-info .types .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

.NOTPARALLEL:
.PHONY: help demo test check readme environment environment-dev clean
