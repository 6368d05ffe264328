# make demo    prompt -> picture, from nothing: environment, INT8 bundle, demo.png
# make serve   the page and the APIs of that bundle at http://127.0.0.1:8000, from nothing (docs/server.md)
# make test    ruff, mypy and pytest in the same environment; what CI runs
# make quick   ruff, mypy and the tests that build nothing
# make lint    ruff and mypy alone
# make native  the C library: build/native/libhart_edge.so; install it with cmake --install build/native --prefix PREFIX
# make native-check  its robustness, half an hour: sanitizers, valgrind, fuzzing, failures, growth (docs/robustness.md)
# make gpu-check GPU_BUNDLE=DIR GPU_REFERENCE=DIR  engines on this machine's GPU against ONNX Runtime (docs/desktop.md)
# make clean   removes bundles, pictures and caches; the environment stays (make distclean removes it too)
#
# PYTHON=/path/to/python3.11 chooses the interpreter; the first usable of python3.11, python3.12, python3 otherwise.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo serve test quick lint gpu-check native native-check native-requirements clean distclean help

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= man astronaut
SEED ?= 7
PICTURE ?= demo.png
PORT ?= 8000

BUNDLE := bundles/hart-emoji-int8
BUNDLE_SOURCES := $(shell find hart_edge/models hart_edge/bundle hart_edge/reference export calib engines -type f \
	! -name '*.pyc' 2>/dev/null)

demo: $(BUNDLE)/manifest.json
	$(BIN)/python -m hart_edge generate "$(PROMPT)" --seed $(SEED) --out $(PICTURE)

serve: $(BUNDLE)/manifest.json $(VENV)/.installed-serve
	$(BIN)/python -m hart_edge serve $(BUNDLE) --port $(PORT)

# A process a core, at most four: one that builds the shipped model takes a gigabyte. The tests of a file stay together.
test: lint native-requirements
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile --durations 25

quick: lint
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile -m "not slow and not builds"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

native: native-requirements
	cmake -S runtime/native -B build/native -DCMAKE_BUILD_TYPE=Release
	cmake --build build/native --parallel

# GPU_BUNDLE=bundles/... GPU_REFERENCE=bundles/... name the engines and the graphs they were made from; GPU_AGAINST=
# the FP16 engines beside INT8. The report lands in gpu-check.json, the table on standard output.
gpu-check: $(VENV)/.installed-dev
	$(BIN)/python -m hart_edge doctor --gpu-check "$(GPU_BUNDLE)" --reference "$(GPU_REFERENCE)" \
		$(if $(GPU_AGAINST),--against "$(GPU_AGAINST)") --report gpu-check.json
	HART_EDGE_GPU_BUNDLE="$(GPU_BUNDLE)" HART_EDGE_GPU_REFERENCE="$(GPU_REFERENCE)" \
		$(BIN)/python -m pytest -q -m gpu tests/gpu

native-check: $(VENV)/.installed-dev native-requirements
	$(BIN)/python -m pytest -m '' -o log_cli=true -o log_cli_level=INFO tests/runtime/native/robustness

native-requirements:
	@runtime/native/requirements.sh

clean:
	rm -rf bundles build dist *.egg-info $(PICTURE) gpu-check.json .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# The build replaces the folder as a whole, and only when it has succeeded.
$(BUNDLE)/manifest.json: $(BUNDLE_SOURCES) | $(VENV)/.installed-demo
	$(BIN)/python -m export.build --precision int8
	@test -f $@ || { echo "expected the build to leave $@, found none" >&2; exit 1; }
	@touch $@

# Stamps: pip runs again only when pyproject.toml has changed. dev adds to demo, so torch is fetched once.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[export,cpu]'
	@touch $@

$(VENV)/.installed-serve: pyproject.toml $(VENV)/.installed-demo
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[export,cpu,serve]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-demo
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[export,cpu,train,dev]'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "hart-edge needs Python 3.11 or newer, and none of python3.11, python3.12," \
		"python3 is; on Debian or Ubuntu: sudo apt-get install python3.11 python3.11-venv;" \
		"or name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		"hart-edge needs Python 3.11 or newer, found %d.%d.%d (%s)" % (*v[:3], sys.executable))'
	@echo "Making $(VENV) with $$($(PYTHON) -V); torch and the exporter go into it once, which takes minutes."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: sudo apt-get install" \
		"$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
