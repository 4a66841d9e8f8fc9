# `make help` lists the targets. PYTHON= names the interpreter, VENV= the environment,
# ARGS= goes to the command, JOBS= is the number of test processes, BENCH= is one of bench/.
VENV ?= .venv
PYTHON ?=
ARGS ?=
JOBS ?= 3
BENCH ?=
PY := $(VENV)/bin/python
export PYTHON

# The caller's own endpoints, keys and folders must not reach a demo or a test.
CLEAN_ENV = env $$(env | sed -nE 's/^((OPENAI|RAG|SLACK)_[A-Za-z0-9_]*|ADMIN_TOKEN|USE_API_KEY_ROTATION)=.*/-u \1/p')
PYTEST = $(CLEAN_ENV) $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo up test thorough check soak bench lock docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' Makefile

setup: ## create .venv, install the locked packages, build the local model
	@scripts/setup.sh "$(VENV)"

demo: setup ## the whole system on free ports in a temporary folder, shown at work
	@$(CLEAN_ENV) $(PY) -m unjam.app.demo $(ARGS)

up: setup ## start everything and serve it until Ctrl-C
	@$(VENV)/bin/unjam up $(ARGS)

test: setup ## all tests except the longer ones, under ten minutes
	@failed=0; \
	$(PYTEST) -n $(JOBS) --maxprocesses 4 --dist worksteal -m "not soak and not thorough and not alone" $(ARGS) || failed=$$?; \
	$(if $(ARGS),true,$(PYTEST) -m "alone and not thorough") || failed=$$?; \
	exit $$failed

thorough: setup ## many faults through the whole house, some minutes more; CI runs them, too
	@failed=0; \
	$(PYTEST) -n $(JOBS) --maxprocesses 4 --dist worksteal -m "thorough and not soak and not alone" $(ARGS) || failed=$$?; \
	$(if $(ARGS),true,$(PYTEST) -m "alone and thorough") || failed=$$?; \
	exit $$failed

check: setup ## lint, format, types, import directions, file lengths, notices, docs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/pyright --pythonpath $(PY)
	@$(VENV)/bin/lint-imports --no-logo
	@$(PYTEST) -p no:cacheprovider tests/unit/test_house.py tests/docs

soak: setup ## the long tests (SEED= and SECONDS= are the storm's)
	@$(PYTEST) --timeout 3600 -m soak $(ARGS) || { [ $$? = 5 ] && echo "there are no long tests yet"; }

bench: setup ## run all measurements, modestly (BENCH= names one, ARGS= are its options)
	@$(CLEAN_ENV) $(PY) -m bench $(BENCH) $(ARGS)

lock: ## write the lock files anew (ARGS=--upgrade for newest versions)
	@scripts/lock.sh $(ARGS)

docs: setup ## write the generated pages, rules, dashboard and notices anew
	@$(PY) scripts/docs.py
	@$(PY) scripts/deploy.py
	@$(PY) scripts/notices.py
