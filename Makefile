# make demo | test | slow | check | bench | soak | conformance     (python3 >= 3.11 and a PyPI index are all they need)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test slow check bench soak conformance clean

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "weakspot needs Python 3.11 or newer"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 2; }
	@touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml
	$(PIP) install --quiet -e ".[demo]"
	@touch $@

$(VENV)/dev.stamp: $(VENV)/python.stamp pyproject.toml
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet -e ".[openvino,onnxruntime,hub,demo]" --group dev
	@touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/hub demo --out demo-out

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not soak and not slow"

slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -m soak --timeout 3600

# The public suite of The Update Framework against the device's client; needs git and the program `faketime`.
CONFORMANCE_CLIENT = $(abspath $(BIN)/python) -m edge.updating.conformance
CONFORMANCE_SUITE := $(VENV)/tuf-conformance

$(CONFORMANCE_SUITE)/env/suite.stamp:
	test -d $(CONFORMANCE_SUITE) || git clone --quiet --depth 1 https://github.com/theupdateframework/tuf-conformance $(CONFORMANCE_SUITE)
	$(PYTHON) -m venv $(CONFORMANCE_SUITE)/env
	$(CONFORMANCE_SUITE)/env/bin/python -m pip install --quiet -e $(CONFORMANCE_SUITE)
	@touch $@

conformance: $(VENV)/dev.stamp $(CONFORMANCE_SUITE)/env/suite.stamp
	@command -v faketime >/dev/null || { echo "the suite needs the program faketime; on Debian: apt install faketime"; exit 2; }
	cd $(CONFORMANCE_SUITE) && env/bin/python -m pytest -q -c pyproject.toml tuf_conformance --entrypoint "$(CONFORMANCE_CLIENT)"

clean:
	rm -rf $(VENV) demo-out build *.egg-info
