# Everything a user or a contributor runs. The set-up itself is scripts/setup.py.
#
#   ARGS="--port 9000"   arguments for serve, test or bench
#   PYTHON=python3.12    the interpreter that .venv is made of
#   GPU=cuda             build llama.cpp for: cuda, metal, vulkan, rocm, none
#
# GPU, CMAKE_ARGS, CFLAGS, CXXFLAGS, CC and CXX are remembered from the last build; setting one to
# something else builds again.

VENV_PYTHON := .venv/bin/python
BOOT := $(or $(PYTHON),$(shell test -x $(VENV_PYTHON) && echo $(VENV_PYTHON)),python3)
SETUP = command -v $(BOOT) >/dev/null || \
	{ echo "corral: there is no $(BOOT); install Python 3.11 or later, or set PYTHON=" >&2; exit 1; }; \
	$(BOOT) -m scripts.setup
RUN := $(VENV_PYTHON) -m
# Two at a time, each with whole files: they share servers, and wait for them half of the time.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help serve test fuzz check lint types imports format bench config clean
.PHONY: ready ready-dev ready-test ready-bench

help:  ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@sed -n '/^#   /s/^#//p' $(firstword $(MAKEFILE_LIST))

serve: ready  ## set everything up, then serve config.yaml
	@exec $(RUN) server serve $(ARGS)

test: ready-test  ## run the whole suite under the coverage gate; with ARGS a part, without it
	@$(RUN) pytest $(or $(ARGS),--cov $(BESIDE))

fuzz: ready-test  ## requests made up from /openapi.json, for 10 minutes
	@CORRAL_FUZZ_S=600 $(RUN) pytest -q -s tests/third_party/test_fuzz.py $(ARGS)

check: lint types imports  ## lint, types and the import rules

lint: ready-dev  ## ruff, nothing changed
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .

types: ready-dev  ## pyright
	@$(RUN) pyright

imports: ready-dev  ## the test of who may import whom
	@$(RUN) pytest -q tests/test_imports.py

format: ready-dev  ## rewrite the sources as ruff wants them
	@$(RUN) ruff check --fix-only --quiet .
	@$(RUN) ruff format .

bench: ready-bench  ## benchmarks, side by side with other servers
	@$(RUN) bench $(ARGS)

config: ready  ## write config.yaml and README's table anew from server/config.py
	@$(RUN) server config > config.yaml.new && mv config.yaml.new config.yaml
	@$(RUN) scripts.settings_table

clean:  ## remove .venv and all caches; models stay
	rm -rf .venv tests/third_party/js/node_modules .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ready:
	@$(SETUP)

ready-dev:
	@$(SETUP) dev

ready-test: ready-dev
	@$(RUN) scripts.clients

ready-bench:
	@$(SETUP) bench
