# One word for each thing that a developer does. `make` alone lists them.
BIN := .venv/bin
SCRATCH ?= /tmp/rammerge-bench

.DEFAULT_GOAL := help
.PHONY: help install check fix test demo bench constraints lock audit release

help: ## list these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## make .venv and install what the tests need
	python3 -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[test]"

check: ## style and types, in half a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: ## mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check ## everything that CI runs
	$(BIN)/pytest -n 4
	$(BIN)/pytest -n 3 -m servers

demo: ## the zoo from merge to champion
	$(BIN)/rammerge demo

bench: ## the merge engine against plain copies; SCRATCH=DIR needs 20 GB
	$(BIN)/python -m benchmarks.merge --scratch $(SCRATCH)

constraints: ## take the newest versions that pyproject.toml allows into constraints.txt
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	python3 -m venv "$$fresh" && "$$fresh/bin/pip" install -q --upgrade-strategy eager -e ".[test]" && \
	{ head -n 1 constraints.txt && "$$fresh/bin/pip" freeze --exclude rammerge | sed 's/+.*//' | LC_ALL=C sort -f; } \
	  > constraints.new && mv constraints.new constraints.txt
	@echo "constraints.txt is renewed: run 'make install test', then commit it"

lock: ## write requirements.lock: constraints.txt with the hash of every file, by uv (`pip install uv`)
	uv pip compile pyproject.toml --extra sandbox --extra otel -c constraints.txt --generate-hashes --universal \
	  --python-version 3.11 --no-header --no-annotate -q -o requirements.new
	@{ head -n 2 requirements.lock && cat requirements.new; } > requirements.mixed
	@mv requirements.mixed requirements.lock && rm requirements.new

audit: ## ask the advisory service about every package of requirements.lock; needs the network
	.ci/audit

release: ## build wheel, source distribution and bill of materials into dist/, the same bytes each time
	$(BIN)/python -m release dist
