# The words people type. `make demo` needs Python 3.11 and make; so does `make test`, which installs everything.
PYTHON ?= python3.11
BIN = .venv/bin
# One marker file a kind of install: made again when the dependencies change.
LIGHT = .venv/.light
FULL = .venv/.full
# The tests of one file stay together, for what they set up once; files run beside each other, one a core.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

.PHONY: help demo setup test test-slow check format bench aligned weights clean
help:
	@echo "make demo   install the light runtime and judge the images of demo/images"
	@echo "make setup  install everything: training, server, tests"
	@echo "make test   install everything and run the tests       (make test-slow: the slow ones)"
	@echo "make check  format, lint, types, tests"
	@echo "make aligned  fakes of the corpus's photographs, for training (needs ../shared)"
	@echo "make weights  train the detector that ships, and all it takes (needs ../shared; an hour of two cores)"
	@echo "make bench  speed and memory of detection, and of the networks (an hour)"

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
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python bench/detect.py
	$(BIN)/python bench/inference.py

# Aligned fakes for configs/apn-mini-aligned.toml: about 25 minutes of one core. Our own autoencoders learn from two sources of
# photographs that no leave-out fold tests on.
CORPUS = ../shared/corpus
SYNTHESIZE = $(BIN)/apn synthesize $(CORPUS)/manifest.jsonl --autoencoder
aligned: setup
	mkdir -p runs/aligned
	grep -E '"source": "(imagenet_samples|ffhq_realorfake_1024)"' $(CORPUS)/manifest.jsonl \
	  | sed 's|"path": "|"path": "../$(CORPUS)/|' > runs/fit.jsonl
	$(SYNTHESIZE) taef2:../shared/autoencoders --out runs/aligned/taef2
	$(SYNTHESIZE) realesrgan:ANIMAVIDEOV3_UP2X --out runs/aligned/esrgan
	$(SYNTHESIZE) own:nearest --fit-data runs/fit.jsonl --out runs/aligned/nearest

# The detector that ships: trained on everything; calibrated on what leave-out runs of the same recipe had never seen.
weights: setup
	$(BIN)/apn train configs/apn-mini.toml --device cpu --out runs/apn-mini
	$(BIN)/python bench/compare.py --out runs/leaveout --methods apn-mini --minutes 0 --offline
	$(BIN)/python bench/delivered.py runs/leaveout/apn-mini runs/leaveout/apn-mini.parquet --out runs/calibration.jsonl
	$(BIN)/python bench/ship.py runs/apn-mini runs/calibration.jsonl

clean:
	rm -rf .venv build *.egg-info
