# Everything sets itself up: a virtual environment in .venv, remade when pyproject.toml or requirements/ change.
# make run PORT=9000 ADMIN_PORT=9001 ARGS='--set feeds.0.rate=1000'
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Each of the hundreds of processes that tests start would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lock quick oldest check debt format cover docs perf many prove clean

run: $(VENV)/.run
	$(BIN)/marketfeed serve --config config.toml \
		$(if $(PORT),--set gateway.port=$(PORT)) $(if $(ADMIN_PORT),--set admin.port=$(ADMIN_PORT)) $(ARGS)

# Two tests per core; then, one per core, the files of tests that depend on the load of the machine.
# COVER=1 measures coverage by the way, as `make debt` does otherwise; long tests run without it.
test: $(if $(COVER),build/coverage/data) $(VENV)/.test
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "$(if $(COVER),slow and )not alone"
	$(BIN)/python -m pytest -q -n logical --dist loadfile -m alone

# Fast tests for development, without other processes and without network: under a minute.
quick: $(VENV)/.test
	$(BIN)/python -m pytest -q -n logical --dist worksteal -m "not e2e and not slow and not alone"

# The quick tests with the oldest releases that pyproject.toml allows. What these import may have deprecated what they use.
oldest: $(VENV)-oldest/.test
	$(VENV)-oldest/bin/python -m pytest -q -n logical --dist worksteal -m "not e2e and not slow and not alone" \
		-W ignore::DeprecationWarning

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Complexity, lengths of files, duplicated blocks, import layers, coverage; fails if a limit is exceeded.
debt: $(VENV)/.test build/coverage/data
	$(BIN)/python tests/debt.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Lines that no test runs; measured as for `make debt`.
cover: $(VENV)/.test build/coverage/data
	$(BIN)/coverage report --show-missing --skip-covered

# Measured in all processes that tests start, and again when a source or a test is newer.
build/coverage/data: $(VENV)/.test $(shell find -L marketfeed tests -name '*.py')
	rm -rf build/coverage
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not alone" --cov --cov-report=

# The site, in build/site. Fails on a broken link and on anything loaded from elsewhere.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

perf: $(VENV)/.perf
	$(BIN)/python -m perf.rings
	$(BIN)/python -m perf.quiet
	$(BIN)/python -m perf.fanout
	$(BIN)/python -m perf.peers

# 100,000 sessions over six workers: needs an otherwise idle machine for five minutes.
many: $(VENV)/.perf
	$(BIN)/python -m perf.many --strict

# Long versions of tests that the suite runs in short: takes minutes.
prove: $(VENV)/.test
	MARKETFEED_PROVE=1 $(BIN)/python -m pytest -q

# What is installed: the releases that requirements/ pins, each checked against its hash. The package itself is
# built with the pinned setuptools, without a build environment of its own.
INSTALL := $(BIN)/pip install -q --require-hashes -r

$(VENV)/.run: pyproject.toml requirements/run.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "marketfeed needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) requirements/run.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	$(INSTALL) requirements/test.txt
	touch $@

$(VENV)-oldest/.test: pyproject.toml requirements/oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install -q --require-hashes -r requirements/oldest.txt
	$(VENV)-oldest/bin/pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.docs: $(VENV)/.run requirements/docs.txt
	$(INSTALL) requirements/docs.txt
	touch $@

$(VENV)/.perf: $(VENV)/.test requirements/perf.txt
	$(INSTALL) requirements/perf.txt
	touch $@

# Pins releases that pyproject.toml allows, for Python 3.11 and newer; UPGRADE=1 pins the newest. setuptools builds
# the package. Run it after each change of a dependency.
COMPILE = echo 'setuptools>=77' | $(BIN)/uv pip compile --quiet --no-config --generate-hashes --python-version 3.11 \
	--default-index https://pypi.org/simple --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) \
	pyproject.toml -

lock: $(VENV)/.uv
	$(COMPILE) --universal --extra test -o requirements/test.txt
	$(COMPILE) --universal -c requirements/test.txt -o requirements/run.txt
	$(COMPILE) --universal -c requirements/test.txt --extra docs -o requirements/docs.txt
	$(COMPILE) --universal -c requirements/test.txt -c requirements/docs.txt --extra perf -o requirements/perf.txt
	$(COMPILE) --python-platform linux --resolution lowest-direct --extra test -o requirements/oldest.txt

$(VENV)/.uv: $(VENV)/.run
	$(BIN)/pip install -q 'uv>=0.8'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
