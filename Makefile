# Two commands: `make demo` runs a whole consortium on this machine, `make test` checks the software.
# Both make their own environment in .venv; nothing needs to be activated.

PYTHON ?= python3.11
VENV := .venv
# cpu, cuda or a build of PyTorch's index such as cu126. What was installed once stays the default.
TORCH ?= $(or $(patsubst $(VENV)/.installed-%,%,$(firstword $(wildcard $(VENV)/.installed-*))),cpu)
INSTALLED := $(VENV)/.installed-$(TORCH)

# A federation is dozens of processes, of which each would compile all of the source for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-long test-science test-pages mutate bench wheelhouse clean

setup: $(INSTALLED)

# The stamp is written last: an interrupted install is done again.
$(INSTALLED): pyproject.toml constraints.txt
	@./install '$(PYTHON)' '$(VENV)' '$(TORCH)'

demo: setup
	$(VENV)/bin/esn-server demo

test: setup
	./check --slow

# What takes minutes each: every promise broken on purpose, the science at its real size, and the rest.
test-long: setup mutate test-pages test-science test-faults

# The files that hold a test of a mark: to collect all the others costs every worker the time of a test.
marked = $(shell grep -rlE "mark\.($(1))\b" --include="test_*.py" tests)

# Federations that are broken in every way, the real subject, the guides. ESN_FAULT_SEED chooses the instants of the kills.
test-faults: setup
	$(VENV)/bin/python -m pytest -q -n 4 --dist loadscope --no-loadscope-reorder --durations=15 -m "(long or faults) and not science" $(call marked,long|faults)

# Every page in a browser, judged by axe-core: what a screen reader or a keyboard would miss. axe-core comes from npm; where its hash
# is another one, that is no page unjudged but a fault.
AXE := $(VENV)/axe-4.14.1.min.js
test-pages: setup
	@[ -f $(AXE) ] || { cd $(VENV) && npm pack --silent axe-core@4.14.1 >/dev/null && \
	tar -xzf axe-core-4.14.1.tgz -O package/axe.min.js >axe-unread.js && rm axe-core-4.14.1.tgz && mv axe-unread.js $(notdir $(AXE)); } || \
	echo "test-pages: axe-core cannot be fetched from npm here: pages are not judged by it" >&2
	@[ ! -f $(AXE) ] || echo "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c  $(AXE)" | sha256sum --check --quiet
	unset AXE_CORE; [ ! -f $(AXE) ] || export AXE_CORE="$$(realpath $(AXE))"; \
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadscope -m axe $(call marked,axe)

# Breaks every promise of docs/threat-model.md, one at a time and in a copy: the test named for it must fail.
mutate: setup
	$(VENV)/bin/python tests/mutations.py

# Of the long tests, those of the science: severity bars on fresh worlds, coverage of intervals, size of tests, never worse than alone,
# the published network, small studies that end; and tables of docs/benchmarks.md against the commands that made them.
test-science: setup
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadscope --durations=15 -m science $(call marked,science)

bench: setup
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-enable

# All wheels in one directory, with an installer that needs no network (docs/deployment.md).
wheelhouse: setup
	$(VENV)/bin/python deploy/wheelhouse/make.py --torch $(if $(filter cpu,$(TORCH)),cpu,cuda)

clean:
	rm -rf $(VENV) runs dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
