# `make demo` and `make test` set everything up: they need Python 3.11+ and make, and PyPI for the first call.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow study lint format clean

demo: .venv/installed-demo
	@"$(BIN)/python" -m ppl.cli demo

test: .venv/installed
	"$(BIN)/python" -m pytest -n auto --dist worksteal

slow: .venv/installed
	"$(BIN)/python" -m pytest -n auto --dist worksteal -m slow

# docs/study.md again: its tables and pictures. Goes on where it was stopped (study/).
study: .venv/installed-demo
	"$(BIN)/python" benchmarks/study.py

lint: .venv/installed
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/pyright"

format: .venv/installed
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

# The demo needs the library alone; tests and linters need the tools of `dev` too, torch among them.
.venv/installed-demo: pyproject.toml
	$(call install,.)

.venv/installed: pyproject.toml
	$(call install,.[dev])
	@touch .venv/installed-demo

define install
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ppl needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@test -x "$(BIN)/python" || "$(PYTHON)" -m venv .venv
	@echo "installing into .venv (once; about a minute)"
	@start=$$(date +%s); "$(BIN)/python" -m pip install -q --disable-pip-version-check -e "$(1)" && \
		echo "installed in $$(($$(date +%s) - start)) s"
	@touch $@
endef

clean:
	rm -rf .venv build *.egg-info demo compare study
