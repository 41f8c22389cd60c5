# Every target sets up what it needs; nothing but Python 3.11 to 3.14 and make is expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY := .venv-parity
TARGETS := .venv-targets
BOARD := .venv-board
OLD := .venv-board-old
NEWEST := .venv-newest
# The newest jax may want a newer Python than the oldest that we support: make newest-jax NEWEST_PYTHON=python3.13
NEWEST_PYTHON ?= $(PYTHON)
WORKERS ?= 2
PLAIN := not slow and not parity and not targets and not boards
# The plain tests compile quickly and run slowly; these run code as users compile it.
OPTIMISED := --xla_force_host_platform_device_count=2 --xla_cpu_enable_concurrency_optimized_scheduler=false

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[development]'
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready ## make .venv with everything for running, testing and linting

.PHONY: demo
demo: venv ## federated pre-training on generated words, and a probe of what it has learnt, in minutes
	test -e runs/demo-words/xx/validated.tsv || \
		$(BIN)/w2v-jax data synth --words-per-sentence 1 1 --words 60 --speakers 30 --clips-per-speaker 48 --conditions varied --out runs/demo-words
	$(BIN)/w2v-jax pretrain --data runs/demo-words --model log-mel-tiny --rounds 8 --local-steps 40 --batch 4 --exclude-speakers-of test --out runs/demo-run
	$(BIN)/w2v-jax probe runs/demo-run --data runs/demo-words --heads linear --out runs/demo-probe

.PHONY: test
test: venv ## the plain tests (their compiled programs are kept in .test-cache)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m '$(PLAIN)'

.PHONY: coverage
coverage: venv ## the plain tests again, with coverage of w2v_jax and fed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m '$(PLAIN)' \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

.PHONY: test-slow
test-slow: venv ## the tests that take minutes each
	XLA_FLAGS='$(OPTIMISED)' $(BIN)/python -m pytest -m slow

$(TARGETS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TARGETS)
	$(TARGETS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cuda-target]' beartype hypothesis pytest
	@touch $@

.PHONY: targets
targets: $(TARGETS)/.ready ## make .venv-targets, with the compiler for CUDA devices (0.5 GB more)

.PHONY: test-targets
test-targets: targets ## compile training steps for boards that are not here
	$(TARGETS)/bin/python -m pytest -m targets

$(BOARD)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BOARD)
	$(BOARD)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt jax numpy flatbuffers
	@touch $@

# The last jax for JetPack 5; old jax has no wheels for the newest Pythons.
$(OLD)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check 'jax==0.4.38' 'jaxlib==0.4.38'
	@touch $@

.PHONY: test-boards
test-boards: venv $(BOARD)/.ready $(OLD)/.ready ## exported steps where jax and numpy are all there is, and on an old jax
	W2V_JAX_BOARD_PYTHON=$(CURDIR)/$(BOARD)/bin/python W2V_JAX_OLD_PYTHON=$(CURDIR)/$(OLD)/bin/python \
		$(BIN)/python -m pytest -m boards -s

$(PARITY)/.ready: pyproject.toml constraints.txt constraints-parity.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-parity.txt -e '.[parity]'
	@touch $@

.PHONY: parity
parity: $(PARITY)/.ready ## compare live with torch and transformers (installs both)
	XLA_FLAGS='$(OPTIMISED)' $(PARITY)/bin/python -m pytest -m parity -s tests/parity

# The ceiling on jax in pyproject.toml is the newest version with which this target has passed.
.PHONY: newest-jax
newest-jax: ## the plain tests on the newest jax, past the ceiling, and which tests differ
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[development]'
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade jax jaxlib flax optax orbax-checkpoint
	$(NEWEST)/bin/python -c 'import jax, flax; print("jax", jax.__version__, "flax", flax.__version__)'
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m '$(PLAIN)'

.PHONY: test-fedjax
test-fedjax: venv ## fedjax's own tests of its algorithms on our backend; FEDJAX_SOURCE=clone of google/fedjax
	$(BIN)/python -m tests.fed.fedjax_own_tests "$(FEDJAX_SOURCE)"

.PHONY: fixtures
fixtures: $(PARITY)/.ready ## make the frozen results of transformers anew
	$(PARITY)/bin/python -m tests.parity.make_fixtures

.PHONY: faults
faults: venv ## plant faults one by one and see the tests notice
	$(BIN)/python -m tests.planted_faults

.PHONY: lint
lint: venv ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

.PHONY: format
format: venv ## format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: bench
bench: venv ## seconds per round for 1 to 16 clients, all methods
	$(BIN)/w2v-jax bench clients --out runs/bench-clients

.PHONY: wheel
wheel: venv ## build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel -d dist

.PHONY: clean
clean: ## remove what the targets made, the runs excepted
	rm -rf $(VENV) $(PARITY) $(TARGETS) $(BOARD) $(OLD) $(NEWEST) dist .test-cache .pytest_cache .ruff_cache .hypothesis .coverage
