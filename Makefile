# make demo, make test: from a fresh checkout to a result. Needs Python 3.11 or later with venv.
PYTHON ?= python3
BIN := .venv/bin
JAX := .venv-jax/bin

.PHONY: demo test test-all test-jax lint format bench results zoo clean

demo: .venv/kzoo
	$(BIN)/kzoo run configs/quickstart.yaml

test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/test test-jax
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

# The rooms below lite/ on the JAX backend, beside no TensorFlow; several processes; a Ray cluster.
test-jax: .venv-jax/test
	KERAS_BACKEND=jax $(JAX)/python -m pytest -m "slow or not slow" \
		tests/backends tests/data tests/learn
	KERAS_BACKEND=jax $(JAX)/python -m pytest tests/network tests/compress

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/architecture.py --check

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/kzoo
	$(BIN)/python tools/bench/startup.py
	$(BIN)/python tools/bench/conversion.py
	$(BIN)/python tools/bench/build.py
	$(BIN)/python tools/bench/features.py
	$(BIN)/python tools/bench/classifier.py
	$(BIN)/python tools/bench/step.py
	$(BIN)/python tools/bench/conversion_memory.py
	$(BIN)/python tools/bench/export.py
	$(BIN)/python tools/bench/latency.py

# docs/zoo.md: hours, on a machine that does nothing else; stopped at any time, it goes on later.
zoo: .venv/kzoo
	$(BIN)/python tools/zoo.py convert
	$(BIN)/python tools/zoo.py measure
	$(BIN)/python tools/zoo.py write

# The tables in docs/results.md, from the records of runs and benchmarks.
results: .venv/kzoo
	$(BIN)/kzoo run configs/quickstart.yaml
	$(BIN)/python tools/bench/startup.py --json build/startup.json
	$(BIN)/python tools/bench/conversion.py --json build/conversion.json
	$(BIN)/python tools/results.py runs/quickstart --bench build/startup.json build/conversion.json

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kzoo needs Python 3.11 or later; $$($(PYTHON) --version) is $(PYTHON). Try: make PYTHON=python3.12"; exit 3; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade pip

.venv/kzoo: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -qq -e .
	@touch $@

.venv/test: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -qq -e '.[test]'
	@touch $@ .venv/kzoo

.venv-jax/test: .venv/bin/python setup.cfg pyproject.toml tools/requirements.py
	$(PYTHON) -m venv .venv-jax
	$(JAX)/python -m pip install -qq --upgrade pip
	$(JAX)/python -m pip install -qq $$($(PYTHON) tools/requirements.py jax ray test)
	$(JAX)/python -m pip install -qq --no-deps -e .
	@touch $@

clean:
	rm -rf .venv .venv-jax build *.egg-info
