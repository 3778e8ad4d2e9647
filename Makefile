# Everything runs from .venv, which is made and kept up to date here.
# make demo   an NPC answers         make test    lint, types and every test
# make lint   make format   make docs (write the generated pages)   make clean
# make bench  ratios side by side, into docs/performance.md      make soak   the long checks

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test unit integration e2e lint format docs bench bench-quick soak clean

demo: .venv/ready
	@$(BIN)/npc-server demo

test: lint unit integration e2e

PURE := npc_server/protocol/*,npc_server/persona/*,npc_server/conversation/*,npc_server/prompt/*,npc_server/reply/*

unit: .venv/dev
	$(BIN)/coverage run -m pytest tests/unit -q
	$(BIN)/coverage report --fail-under=95 --include='$(PURE)'

# They wait for Redis, sockets and time-outs more than they compute.
integration: .venv/dev
	$(BIN)/python -m pytest tests/integration -q -n 4

e2e: .venv/dev .venv/browser
	$(BIN)/python -m pytest tests/e2e -q

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev
	$(BIN)/python tools/docs.py

BENCHMARKS := ttft relay load returning warm preempt history tail engines memory addressees

# One that fails is told and leaves its old results; the others and the report still run.
bench: .venv/bench
	@failed=; for name in $(BENCHMARKS); do \
		echo "== $$name"; $(BIN)/python benchmarks/$$name.py $(BENCH) || failed="$$failed $$name"; \
	done; $(BIN)/python benchmarks/report.py; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

bench-quick:
	@$(MAKE) --no-print-directory bench BENCH="--quick $(BENCH)"

# Goes on where it stopped: what has passed is noted in .soak/.
soak: .venv/dev
	$(BIN)/python -m pytest tests/soak -q -p no:cacheprovider -o faulthandler_timeout=1200

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* .soak benchmarks/results

.venv/ready: pyproject.toml constraints.txt tools/setup.sh
	@PYTHON=$(PYTHON) sh tools/setup.sh

.venv/dev: .venv/ready
	@sh tools/setup.sh dev

.venv/bench: .venv/ready
	@sh tools/setup.sh bench

.venv/browser: .venv/ready tools/browser.sh
	@sh tools/browser.sh
