# Two commands: `make demo` runs a whole consortium on this machine, `make test` checks the software.
# Both make their own environment in .venv; nothing needs to be activated.

PYTHON ?= python3.11
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test test-faults bench clean

setup: $(INSTALLED)

# The stamp is written last: an interrupted install is done again.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --group dev
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[client,server]'
	touch $@

demo: setup
	$(VENV)/bin/esn-server demo

test: setup
	./check --slow

# The whole table of faults, in an hour or so; ESN_FAULT_SEED chooses the instants of the kills.
test-faults: setup
	$(VENV)/bin/python -m pytest tests/federation -m "slow or faults" -q -s --durations=15

bench: setup
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-enable

clean:
	rm -rf $(VENV) runs dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
