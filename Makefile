# make demo    prompt -> picture, from nothing: environment, INT8 bundle, demo.png; says what it does and how long it takes
# make serve   the page and the APIs of that bundle at http://127.0.0.1:8000, from nothing (docs/server.md)
#              PORT=8080 takes another port
# make wheel   dist/: the wheel of a device, with the INT8 bundle in it, and the source distribution (docs/releases.md)
# make pictures  the pictures of README.md, drawn again with that bundle
# make bundle  the INT8 bundle alone: bundles/hart-emoji-int8
# make test    ruff, mypy and pytest in the same environment; what CI runs
# make quick   ruff, mypy and the tests that build nothing and take less than half a second each
# make lint    ruff and mypy alone
# make native  the C library: build/native/libhart_edge.so; install it with cmake --install build/native --prefix PREFIX
#              ONNXRUNTIME_ROOT=DIR takes the header of an unpacked release of ONNX Runtime
# make native-check  its robustness, half an hour: sanitizers, valgrind, fuzzing, failures, growth (docs/robustness.md)
# make gpu-check GPU_BUNDLE=DIR GPU_REFERENCE=DIR  engines on this machine's GPU against ONNX Runtime (docs/desktop.md)
# make clean   removes bundles, pictures and caches; the environment stays (make distclean removes it too)
#
# PYTHON=/path/to/python3.11 chooses the interpreter; the first usable of python3.11, python3.12, python3 otherwise.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo demo-begins pictures serve bundle wheel test quick lint gpu-check native native-check native-requirements clean distclean help

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= man astronaut
SEED ?= 7
PICTURE ?= demo.png
SHEET := demo-sheet.png
STRIP := "penguin" "hamburger" "guitar" "sunflower" "bicycle" "house" "cactus" "umbrella"
PORT ?= 8000

BUNDLE := bundles/hart-emoji-int8
BUNDLE_SOURCES := $(shell find hart_edge/models hart_edge/bundle hart_edge/reference export calib engines -type f \
	! -name '*.pyc' 2>/dev/null)

demo: demo-begins $(BUNDLE)/manifest.json
	@echo "[3 of 3] a picture of \"$(PROMPT)\""
	@$(BIN)/python -m hart_edge generate "$(PROMPT)" --seed $(SEED) --out $(PICTURE)
	@$(BIN)/python -c 'import sys; from PIL import Image; side = Image.open(sys.argv[1]).size; \
		print("%s: %d x %d pixels" % (sys.argv[1], *side))' $(PICTURE)
	@$(BIN)/python -m benchmarks.sheet $(BUNDLE) --seed 1 --prompts $(STRIP) --out $(SHEET)
	@echo "With the prompt and seed of this Makefile it looks like docs/images/demo.png. Go on with"
	@echo "    . $(BIN)/activate"
	@echo "    hart-edge generate \"a red heart\" --seed 3 --out heart.png"

demo-begins:
	@echo "make demo, what is there already left out:"
	@echo "  [1 of 3] $(VENV), with torch and the exporter: 1 to 3 GB from the package index, minutes"
	@echo "  [2 of 3] $(BUNDLE): 2 to 8 minutes on two cores, a line a step"
	@echo "  [3 of 3] $(PICTURE), and eight other prompts in $(SHEET): a second each"

# Static INT8, whatever is fastest on this machine: the bundle is for the devices that take the wheel.
bundle: $(BUNDLE)/manifest.json

pictures: $(BUNDLE)/manifest.json
	$(BIN)/python -m hart_edge generate "man astronaut" --seed 7 --bundle $(BUNDLE) --out docs/images/demo.png
	$(BIN)/python -m benchmarks.sheet $(BUNDLE) --seed 1 --prompts $(STRIP) --out docs/images/strip.png

# By way of the source distribution, which is made first.
wheel: $(BUNDLE)/manifest.json $(VENV)/.installed-build
	rm -rf dist
	HART_EDGE_BUNDLE="$(CURDIR)/$(BUNDLE)" $(BIN)/python -m build --outdir dist
	@echo "for a device: copy dist/*.whl there, and pip install './hart_edge-VERSION-py3-none-any.whl[cpu]'"

serve: $(BUNDLE)/manifest.json $(VENV)/.installed-serve
	$(BIN)/python -m hart_edge serve $(BUNDLE) --port $(PORT)

# A process a core, at most four: one that builds the shipped model takes a gigabyte. The tests of a file stay together.
test: lint native-requirements
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile --durations 25

quick: lint
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile -m "not slow and not long"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

native: native-requirements
	@echo "The C library, build/native/libhart_edge.so: 1 to 3 minutes on two cores"
	cmake -S runtime/native -B build/native -DCMAKE_BUILD_TYPE=Release \
		$(if $(ONNXRUNTIME_ROOT),-DONNXRUNTIME_ROOT="$(ONNXRUNTIME_ROOT)")
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
	rm -rf bundles build dist *.egg-info $(PICTURE) $(SHEET) gpu-check.json .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# The build replaces the folder as a whole, and only when it has succeeded.
$(BUNDLE)/manifest.json: $(BUNDLE_SOURCES) | $(VENV)/.installed-demo
	@echo "[2 of 3] $(BUNDLE)"
	@$(BIN)/python -m export.build --precision int8 --int8-scheme static --out $(BUNDLE)
	@test -f $@ || { echo "expected the build to leave $@, found none" >&2; exit 1; }
	@touch $@

# Stamps: pip runs again only when pyproject.toml has changed. dev adds to demo, so torch is fetched once.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo "[1 of 3] $(VENV)"
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[export,cpu]'
	@touch $@

$(VENV)/.installed-serve: pyproject.toml $(VENV)/.installed-demo
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[export,cpu,serve]'
	@touch $@

$(VENV)/.installed-build: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check 'build>=1.2'
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
