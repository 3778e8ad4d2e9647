# Everything runs from .venv, which is made and kept up to date here.
# make demo   an NPC answers         make test    lint, types and every test
# make lint   make format   make docs (write the generated pages)   make clean

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test unit integration e2e lint format docs clean

demo: .venv/ready
	@$(BIN)/npc-server demo

test: lint unit integration e2e
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

unit: .venv/dev
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest tests/unit -q
	@$(BIN)/coverage combine -q --keep --data-file=.coverage.pure
	@$(BIN)/coverage report --data-file=.coverage.pure --fail-under=95 \
	    --include='npc_server/protocol/*,npc_server/persona/*,npc_server/conversation/*,npc_server/prompt/*,npc_server/reply/*'
	@rm -f .coverage.pure

integration: .venv/dev
	$(BIN)/coverage run -m pytest tests/integration -q

e2e: .venv/dev .venv/browser
	$(BIN)/coverage run -m pytest tests/e2e -q

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

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*

.venv/ready: pyproject.toml constraints.txt tools/setup.sh
	@PYTHON=$(PYTHON) sh tools/setup.sh

.venv/dev: .venv/ready
	@sh tools/setup.sh dev

.venv/browser: .venv/ready tools/browser.sh
	@sh tools/browser.sh
