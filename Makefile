# make demo: watch the whole system work. make bench: benchmarks.
# make test: lint, types and all tests but the slow ones. make test-slow: tests that start whole runs
# or commands: kill and resume, many processes, studies, preparing data.
# make fuzz SEED=n INPUTS=m: 9,000 damaged and hostile files, of which `make test` has a few hundred.
# make docs: the pages of docs/ as a site in build/site; a warning is an error.
# make soak: a training of 2,000 steps, whose memory, files and shared memory must stay flat.
# make gpu: what a GPU does, in 9 minutes (MINUTES=n); needs one. Writes docs/gpu.md.
# make chaos: over 500 faults injected into real trainings, and 200 pairs of trainings started at
# once on one run folder: about 40 minutes.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-slow docs bench gpu fuzz chaos soak
demo: .venv/installed
	$(BIN)/python tools/demo.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
		-m 'slow and not chaos'

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.run

gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu --minutes $(or $(MINUTES),9); status=$$?; \
	$(BIN)/python -m benchmarks.gpu --page && exit $$status

chaos: .venv/installed
	$(BIN)/python -m pytest -m chaos
	$(BIN)/python tests/chaos/inject_faults.py
	$(BIN)/python tests/chaos/pairs.py

soak: .venv/installed
	$(BIN)/python tests/chaos/soak.py

fuzz: .venv/installed
	$(BIN)/python tests/fuzz/fuzz_run.py --seed $(or $(SEED),0) --inputs $(or $(INPUTS),9000)

.venv/installed: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[dev,bench]'
	touch $@
