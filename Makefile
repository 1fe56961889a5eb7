# Everything a person types. Nothing is installed by hand: each target makes .venv first where it is missing or old.
.PHONY: run test check audit torture bench format ui experiments git
.DEFAULT_GOAL := run

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

run: git $(READY)  ## train, evaluate and log the classifier that conf/ describes
	dvc repro

git:
	@d="$(CURDIR)"; while [ ! -e "$$d/.git" ] && [ "$$d" != / ]; do d=$$(dirname "$$d"); done; \
	[ -e "$$d/.git" ] || grep -qs no_scm .dvc/config.local || \
	{ echo 'This folder is in no git repository, as a downloaded ZIP is not. Type'; \
	  echo '  git init && git add -A && git commit -m start'; exit 1; }

experiments: $(READY)  ## the table of DVC's experiments: what was changed, and what came of it
	@dvc exp show --no-pager --only-changed --keep 'accuracy$$|valid_loss' --drop '.*/|params.yaml|State|Executor'

test: $(READY)  ## run the tests
	python -m pytest

check: $(READY) audit  ## format, lint, types, known vulnerabilities, tests
	ruff format --check .
	ruff check .
	mypy
	python -m pytest

audit: $(READY)  ## ask PyPI which pinned packages have known vulnerabilities
	@python -m tests.audit

torture: $(READY)  ## a fault at every step on the disk, damage to all that is kept, hostile files: takes hours
	python -m tests.reliability.torture
	python -m tests.reliability.fuzz_files --mutants 20000
	python -m tests.reliability.kill_sweeps --rounds 10
	TORTURE=1 python -m pytest -n 0 tests/reliability/test_settings_fuzz.py tests/stages/test_settings_arrive.py
	python -m pytest -m slow tests/reliability
	@if [ "$$(id -u)" = 0 ]; then python -m tests.reliability.mounts; else echo 'Small disks and mounts need root: sudo make torture'; fi

bench: $(READY)  ## compare with fastai on a quiet machine, e.g. BENCH='--photos DIR --photos-weights FILE': half an hour
	@python -m benchmarks.against_fastai $(BENCH)

format: $(READY)  ## put the code into its one format
	ruff format .
	ruff check --fix .

ui: $(READY)  ## open the table of runs at http://127.0.0.1:5000
	@python -m pipeline.tracking ui

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
