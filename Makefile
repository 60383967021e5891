# busd: what one types here.  Needs python3 (3.11 or later), python3-venv and make; all else goes into .venv.
#
#   make demo               a broker, some traffic, a crash and a restart, shown with the commands
#   make test               every check: lint, types, tests
#   make lint               lint and types only
#   make kill ROUNDS=200    kill -9 under load, so many times for each sync policy
#   make proofs             groups, pipes and channels at full size: 100,000 messages and 40 kills, 1 GiB, 10 million values
#   make bench              measure it beside redis-server and nats-server: ratios, bench/results.md, charts
#   make faults             each fault that busd promises to survive: cases, promise, what held (an hour; DEPTH=1 ROUNDS=10: minutes)
#   make faults-root        those that need root and the device mapper
#   make soak ROUNDS=200    kill, and the randomised tests again and again
#   make soak-load MINUTES=60   publishers at twice the pace of the readers, a cap, a limit on memory; draws docs/soak.svg
#   make fuzz FUZZ_S=60     atheris on the codecs and the scanner, so many seconds each
#   make clean              remove what the above made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROUNDS ?= 200
DEPTH ?= 2
MINUTES ?= 60
FUZZ_S ?= 60
PIP := $(BIN)/pip --quiet --disable-pip-version-check
# One file for each state of the environment, newer than what it was made from.
RUNS := $(VENV)/.installed
CHECKS := $(VENV)/.installed-for-tests
FUZZES := $(VENV)/.installed-for-fuzz
BENCHES := $(VENV)/.installed-for-bench

.PHONY: demo test lint kill soak soak-load fuzz clean proofs bench faults faults-root

demo: $(RUNS)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# Two at a time: most of them wait for processes, and more would be late for each other's clocks.
test: lint
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(CHECKS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kill: $(CHECKS)
	BUSD_KILL_ROUNDS=$(ROUNDS) $(BIN)/pytest tests/process/test_kill.py tests/process/test_check.py -s

proofs: $(CHECKS)
	BUSD_CHAOS_MESSAGES=100000 BUSD_CHAOS_KILLS=40 BUSD_PIPE_MEBIBYTES=1024 BUSD_HOPPER_MESSAGES=10000000 \
	  $(BIN)/pytest -s --timeout 1200 tests/process/test_group_chaos.py tests/process/test_pipes.py tests/process/test_seeds.py

# ONLY="fanout replay" measures these, ROUNDS=5 more often, QUICK=1 whether it works.  ROUNDS counts when it is given.
bench: $(BENCHES)
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(filter-out file,$(origin ROUNDS)),--rounds $(ROUNDS))

faults: $(CHECKS)
	BUSD_FAULT_DEPTH=$(DEPTH) BUSD_KILL_ROUNDS=$(ROUNDS) $(BIN)/python -m tests.faults.run

faults-root: $(CHECKS)
	BUSD_FAULTS_ROOT=1 $(BIN)/python -m tests.faults.run --target faults-root

# Hypothesis begins at another place every time.
soak: kill
	for round in $$(seq $$(( ($(ROUNDS) + 9) / 10 ))); do $(BIN)/pytest tests/unit tests/recovery tests/fuzz || exit 1; done

soak-load: $(CHECKS)
	BUSD_SOAK_S=$$(( $(MINUTES) * 60 )) BUSD_SOAK_SVG=$(CURDIR)/docs/soak.svg $(BIN)/pytest --timeout=0 tests/process/test_soak.py

fuzz: $(FUZZES)
	cd tests/fuzz && for harness in atheris_*.py; do PYTHONPATH=$(CURDIR) $(CURDIR)/$(BIN)/python $$harness -max_total_time=$(FUZZ_S) || exit 1; done

clean:
	rm -rf $(VENV) *.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(RUNS): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable .
	@touch $@

$(FUZZES): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[test,fuzz]'
	@touch $@ $(RUNS)

$(CHECKS): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[test]'
	@touch $@ $(RUNS)

$(BENCHES): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[bench]'
	@touch $@ $(RUNS)
