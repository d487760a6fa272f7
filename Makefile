# `make demo` and `make test` do all the set-up they need on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
INSTALLED = $(VENV)/installed.txt
LINT = $(VENV)/lint.txt
METRICS = $(VENV)/metrics.txt
DEMO ?= runs/demo
PARALLEL ?= -n auto --maxprocesses 8 --dist loadfile
COMPILE = uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --fork-strategy requires-python

.PHONY: help demo test test-all smoke features lint format lock peers clean

help:
	@echo "make demo      train two objectives on moving shapes and compare them: $(DEMO)/report.html"
	@echo "make test      the tests that every change must pass"
	@echo "make test-all  these and the long ones, whether they notice broken mathematics, and runs that are killed"
	@echo "make features  which feature is proved by which test, and did it pass; writes the README's table"
	@echo "make lint      ruff, pyright, and whether the tables in the READMEs are those of the records"
	@echo "make peers     an environment of its own for what experiments/speed compares with (PyTorch)"
	@echo "make lock      compile the lock files from their .in files (needs uv)"

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python >= 3.11 is needed, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (once; a minute or two)"
	@start=$$(date +%s); \
	  $(PYTHON) -m venv $(VENV) && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt && \
	  echo "Set-up took $$(( $$(date +%s) - start )) s" | tee $@

$(LINT) $(METRICS): $(VENV)/%.txt: requirements/%.txt $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

demo: $(INSTALLED)
	@cat $(INSTALLED)
	$(PY) -m vdm compare --config=configs/demo.py --workdir=$(DEMO)

test: $(METRICS)
	$(PY) -m pytest -m "not slow" $(PARALLEL)

test-all: $(METRICS)
	$(PY) -m pytest $(PARALLEL)
	$(PY) -m tests.mutations
	$(PY) -m tests.faults

smoke: $(INSTALLED)
	$(PY) -m pytest -m smoke

features: $(METRICS)
	$(PY) -m tests.features

lint: $(LINT) $(METRICS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(PY) -m tests.features --check
	$(PY) -m experiments.demo.publish --check
	$(PY) -m experiments.solvers --check
	$(PY) -m tests.faults --check
	$(PY) -m experiments.plans --check
	$(PY) -m experiments.loop --check
	$(PY) -m experiments.metrics --check
	$(PY) -m experiments.objectives --check
	$(PY) -m experiments.speed --check
	$(PY) -m experiments.speed.schedulers_table --check

format: $(LINT)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock:
	$(COMPILE) requirements.in -o requirements.txt
	for extra in cuda tpu metrics lint; do $(COMPILE) requirements/$$extra.in -o requirements/$$extra.txt || exit 1; done

# Not of the lock: nothing but experiments/speed needs it, and its torch is the build that is right for the machine. The
# packages after --no-deps ask for more than their networks need.
peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps video-diffusion-pytorch==0.7.0 \
	  einops-exts==0.0.4 rotary-embedding-torch==0.9.1

clean:
	rm -rf $(VENV) .venv-peers
