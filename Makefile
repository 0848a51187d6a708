# What a person does with this tree; CI runs the same targets. `make` alone lists them.
#
#   STATE=DIR           what outlives the server: routes, audit log
#   PYTHON=python3.12   the interpreter of the virtual environment   MODELS=DIR   the model repository that is served
#   EXTRAS=gpu,demo     ONNX Runtime with CUDA instead of the CPU's  ARGS='...'   more flags for gateway, pytest or bench

PYTHON ?= python3
EXTRAS ?= cpu,demo,plot,postgres,profile
MODELS ?= models
STATE ?= state
ARGS ?=
BIN := .venv/bin
export PYTHON

NATIVE := setup.py $(shell find ext -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
DEBUG_LIB := $(CURDIR)/build/debug/lib
# libstdc++ too: the sanitizer looks up __cxa_throw as it starts, before ONNX Runtime has brought it in.
PRELOAD = $(shell gcc -print-file-name=libasan.so):$(shell gcc -print-file-name=libubsan.so):$(shell gcc -print-file-name=libstdc++.so.6)

.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: serve
serve: build demo-models ## serve MODELS (default: demo models, trained at the first start)
	@exec $(BIN)/gateway serve --models "$(MODELS)" --state "$(STATE)" $(ARGS)

.PHONY: demo-models
demo-models: .venv/installed ## train the demo models into MODELS, unless it holds models of yours
	@$(BIN)/python -m demo --unless-others "$(MODELS)"

.PHONY: demo
demo: build ## a gateway under load and three releases at once: one promoted, two taken back; some two minutes
	@$(BIN)/python -m demo.rollouts $(ARGS)

.PHONY: triton-fleet
triton-fleet: build demo-models ## start two real tritonservers that run version 2 of the model `risk` in MODELS
	@exec $(BIN)/python -m demo.triton fleet "$(MODELS)" $(ARGS)

.PHONY: build
build: build/release/done ## system packages, .venv with the gateway command, native modules; only what is missing

.venv/installed: pyproject.toml tools/setup-system
	@tools/setup-system build
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "installing Python packages into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group build --group test --group check --group bench
	@GATEWAY_NATIVE=0 PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	  --check-build-dependencies -e '.[$(EXTRAS)]'
	@touch $@

build/release/done: .venv/installed $(NATIVE)
	@echo "building the native modules"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@mkdir -p $(@D) && touch $@

.PHONY: test
test: build ## the test suite; one test: make test ARGS=tests/pb/test_wire.py
	@tools/setup-system test
	@$(BIN)/python -m demo.triton setup
	@$(BIN)/pytest $(ARGS)

.PHONY: test-debug
test-debug: build ## the suite on debug counters and assertions, under the address and undefined-behaviour sanitizers
	@tools/setup-system test
	@$(BIN)/python -m demo.triton setup
	@echo "building the debug variant"
	@GATEWAY_DEBUG=1 GATEWAY_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 LD_PRELOAD=$(PRELOAD) \
	  PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONPATH=$(DEBUG_LIB) \
	  $(BIN)/pytest -m 'not leak and not load' -o "pythonpath=$(DEBUG_LIB) ." -o timeout=300 -o faulthandler_timeout=290 $(ARGS)

.PHONY: check
check: .venv/installed ## format, lint, types, Cython lint, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint ext
	@tools/proto --check

.PHONY: bench
bench: build ## measure against the limit of HTTP/2 on this machine (ARGS=--history: plot the kept runs)
	@tools/setup-system bench
	@$(BIN)/python -m bench $(ARGS)

.PHONY: profile
profile: build ## where the time of one request goes, stage by stage: perf and callgrind (ARGS=--help)
	@tools/setup-system profile
	@$(BIN)/python -m bench.profile $(ARGS)

.PHONY: bench-peers
bench-peers: build ## other servers side by side with the gateway (ARGS=--quick: does each work? ARGS=--full: all of it)
	@tools/setup-system peers
	@$(if $(filter --list --report --help,$(ARGS)),,$(BIN)/python -m bench.peers --install)
	@$(BIN)/python -m bench.peers $(or $(ARGS),--kept)

.PHONY: proto
proto: .venv/installed ## compile proto/ into gateway/pb
	@tools/proto

.PHONY: clean
clean: ## remove what was built; .venv and models stay
	rm -rf build dist gateway/native/*.so *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
