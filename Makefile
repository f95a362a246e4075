# The two commands: `make run` opens the lab, `make test` tests it. Everything else is below.

# Python 3.11 is what is tested; then the newest of 3.13, 3.12, 3.10. PYTHON=... takes another.
PYTHON ?= $(shell for p in python3.11 python3.13 python3.12 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)
VENV   ?= .venv
PY      = $(VENV)/bin/python
ARGS   ?=

.PHONY: run test test-slow lint bench assure clean help

run: $(VENV)/.runtime  ## install what is missing and open the page (ARGS="--port 8000" are app.py's own)
	@$(PY) app.py $(ARGS)

test: $(VENV)/.dev  ## every test but the slow ones, the browser's included
	@$(PY) -m pytest --timeout 300 -n 2 --dist worksteal -rR $(ARGS)

test-slow: $(VENV)/.dev  ## the long ones; their results are kept in docs/slow-tests.md
	@$(PY) bench/slow.py $(ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

bench: $(VENV)/.bench  ## measure page, training and generation beside peers; writes docs/performance.md
	@$(PY) -m bench.report $(ARGS)

assure: $(VENV)/.dev  ## a class of thirty, odd calls: check the bar; writes docs/assurance.md
	@$(PY) -m assure $(ARGS)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## */\1: /p' Makefile

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(PY):
	@if [ -z "$(PYTHON)" ]; then echo "LLM Lab needs Python 3.10 to 3.13 (3.11 is what is tested); none was found. Install one, or say PYTHON=/path/to/python."; exit 1; fi
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python has no venv. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements.txt constraints.txt | $(PY)
	@$(PY) bench/install.py requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@$(PY) bench/install.py requirements-dev.txt
	@touch $@

# Peers to measure against; --no-deps, since the book's own list asks for tensorflow and jupyter.
$(VENV)/.bench: requirements-eval.txt $(VENV)/.dev
	@$(PY) -m pip install -q -r requirements-eval.txt
	@$(PY) -m pip install -q --no-deps llms-from-scratch==1.0.19
	@touch $@
