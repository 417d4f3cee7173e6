# Everything sets itself up: a virtual environment in .venv, remade when pyproject.toml changes.
# make run PORT=9000 ADMIN_PORT=9001 ARGS='--set feeds.0.rate=1000'
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test quick check debt format cover docs perf many prove clean

run: $(VENV)/.run
	$(BIN)/marketfeed serve --config config.toml \
		$(if $(PORT),--set gateway.port=$(PORT)) $(if $(ADMIN_PORT),--set admin.port=$(ADMIN_PORT)) $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q

# While you write code: no other processes; about a minute.
quick: $(VENV)/.test
	$(BIN)/python -m pytest -q -m "not e2e and not slow"

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Complexity, lengths of files, duplicated blocks, import layers; fails on what is beyond its limit.
debt: $(VENV)/.test
	$(BIN)/python tests/debt.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

cover: $(VENV)/.test
	$(BIN)/python -m pytest -q --cov=marketfeed --cov=feeds --cov-report=term-missing

# The site, in build/site. Fails on a broken link and on anything loaded from elsewhere.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

perf: $(VENV)/.perf
	$(BIN)/python -m perf.rings
	$(BIN)/python -m perf.quiet
	$(BIN)/python -m perf.fanout
	$(BIN)/python -m perf.peers

# 100,000 sessions over six workers: wants an otherwise idle machine for five minutes.
many: $(VENV)/.perf
	$(BIN)/python -m perf.many --strict

# Long proofs: minutes, not seconds. The suite runs a short form of each.
prove: $(VENV)/.test
	MARKETFEED_PROVE=1 $(BIN)/python -m pytest -q

$(VENV)/.run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "marketfeed needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install -q -e '.[test]'
	touch $@

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

$(VENV)/.perf: $(VENV)/.test
	$(BIN)/pip install -q -e '.[perf]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
