# What people do here, one word each. `make` alone lists it.
#
# Everything goes through cargo, with one profile (dev) and one set of features (the whole
# workspace's), so that demo and test compile each dependency once: docs/decisions/0003.
# CARGO_TARGET_DIR is honoured.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
# Options of `dockercomp demo`, as in: make demo ARGS='--executor wasm --output json'
ARGS ?=

# The directory that cargo builds in, by its own word; asked only by the recipes that need it.
target_dir = $(shell $(CARGO) metadata --locked --no-deps --format-version 1 | \
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: ## Install what is missing (as root), or say how
	@scripts/setup.sh

.PHONY: build
build: setup ## Build the binary, dockercomp
	$(CARGO) build --locked --workspace

.PHONY: examples
examples: setup ## Build the example programs for both executors
	examples/build.sh

.PHONY: demo
demo: build examples ## Run a whole network on this machine; options in ARGS
	@"$(target_dir)/debug/dockercomp" demo $(ARGS)

.PHONY: test
test: setup examples ## Run all tests
	@scripts/test.sh

.PHONY: test-kill
test-kill: setup ## Kill the receiver of 1 GiB twenty times; make test does it with less
	DOCKERCOMP_KILL_TEST_MIB=1024 $(CARGO) test --locked -p dockercomp-exchange --test it kill::

.PHONY: interop
interop: build ## Read an exported dataset with an IPLD implementation from PyPI
	@scripts/interop.sh "$(target_dir)"

.PHONY: notebook
notebook: build ## Run the example notebook on a small study, with Python from PyPI
	@scripts/notebook.sh "$(target_dir)"

.PHONY: bench-transfer
bench-transfer: setup ## Compare how fast data travels with other tools (needs root)
	@scripts/bench-transfer.sh

.PHONY: bench-verify
bench-verify: setup ## Time the offline check of 1,000 receipts
	@mkdir -p "$(target_dir)/bench"
	DOCKERCOMP_BENCH_JSON="$(target_dir)/bench/verify.json" $(CARGO) test --locked -p dockercomp \
	    --test it -- --exact receipts::a_thousand_receipts_are_verified --nocapture

# Kills of `make crash`, and a seed, as in: make crash KILLS=50 SEED=7
KILLS ?= 200
SEED ?=

.PHONY: crash
crash: setup examples ## Kill a coordinator under load 200 times, and check that nothing is lost
	DOCKERCOMP_CRASH_KILLS=$(KILLS) $(if $(SEED),DOCKERCOMP_CRASH_SEED=$(SEED)) \
	    $(CARGO) test --locked --package dockercomp --test it kills:: -- --nocapture

# Bugs of `make mutants`, all unless named, as in: make mutants MUTANTS='plurality-wins credit-twice'
MUTANTS ?=

.PHONY: mutants
mutants: ## Plant bugs in the core and check that the tests catch each
	@scripts/mutants.sh $(MUTANTS)

# Patches of `make fuzz-mutants`, as paths, those of docs/simulation.md unless named, and seeds
# for each, as in: make fuzz-mutants MUTANTS=coordinator/core/mutants/credit-twice.patch
SEEDS ?= 1000

.PHONY: fuzz-mutants
fuzz-mutants: ## Plant bugs in core and agent; check that drawn worlds find and shrink each
	@SEEDS=$(SEEDS) scripts/fuzz-mutants.sh $(MUTANTS)

# Targets of `make fuzz`, all unless named, and seconds for each.
TARGETS ?=
SECONDS_EACH ?= 60

.PHONY: fuzz
fuzz: setup ## Fuzz the decoders with cargo-fuzz, and keep what reaches new code
	@SECONDS_EACH=$(SECONDS_EACH) scripts/fuzz.sh $(TARGETS)

# Numbers of hosts of `make bench-sim`, for thirty days or the number after the colon, as in:
# make bench-sim HOSTS='1000 10000'
HOSTS ?= 1000 10000 100000 1000000:1

.PHONY: bench-sim
bench-sim: setup ## Measure the simulator: events per second, memory per host, 30 days of N hosts
	@mkdir -p "$(target_dir)/bench"
	$(CARGO) bench --locked -p dockercomp-simulations --bench sim -- \
	    --json "$(target_dir)/bench/sim.json" $(HOSTS)

.PHONY: lint
lint: setup purity ## Check formatting, lints, documentation and purity
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

.PHONY: swarms
swarms: setup ## Compare crowds of real libp2p swarms with the models (minutes)
	$(CARGO) test --locked --package dockercomp-network --test it -- \
	    --ignored --nocapture --test-threads 1 swarms::

.PHONY: purity
purity: ## Check that the pure crates depend on nothing that does I/O
	@scripts/purity.sh

.PHONY: bench-dispatch
bench-dispatch: setup ## Measure validated work units per second; options in ARGS
	$(CARGO) build --locked --release --bin dockercomp
	@python="$$(scripts/dask.sh "$(target_dir)/bench/dask")" && \
	MALLOC_ARENA_MAX=2 $(CARGO) bench --locked -p dockercomp-coordinator --bench dispatch -- \
	    --binary "$(target_dir)/release/dockercomp" --into "$(target_dir)/bench" \
	    $${python:+--dask "$$python"} $(ARGS)

.PHONY: deny
deny: ## Check licences, advisories and banned crates (needs cargo-deny)
	@command -v cargo-deny > /dev/null || \
	    { echo "deny: cargo-deny is not installed; fix: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
	rm -rf examples/*/build
