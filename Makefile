# The words people type. `make demo` needs Python 3.11 and make; so does `make test`, which installs everything.
PYTHON ?= python3.11
BIN = .venv/bin
# One marker file a kind of install: made again when the dependencies change.
LIGHT = .venv/.light
FULL = .venv/.full

.PHONY: help demo setup test test-slow check format bench clean
help:
	@echo "make demo   install the light runtime and judge the images of demo/images"
	@echo "make setup  install everything: training, server, tests"
	@echo "make test   install everything and run the tests       (make test-slow: the slow ones too)"
	@echo "make check  format, lint, types, tests"
	@echo "make bench  speed and memory of detection"

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(LIGHT): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(FULL): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(LIGHT)

setup: $(FULL)

demo: $(LIGHT)
	$(BIN)/apn detect demo/images

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow"

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python bench/detect.py

clean:
	rm -rf .venv build *.egg-info
