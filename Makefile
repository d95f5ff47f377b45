# make demo | test | check | bench | soak     (python3 >= 3.11 and a PyPI index are all they need)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check bench soak clean

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
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not soak"

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -m soak --timeout 3600

clean:
	rm -rf $(VENV) demo-out build *.egg-info
