# transmute in PostgreSQL's habit. `make demo` and `make test` do everything on private servers under target/, installing what is
# missing; `make install PG_CONFIG=/path/to/pg_config` serves a real one. `make help` lists the rest.

PG ?= 18
PGS ?= 15 18
# Versions that must compile, and are not tested every time.
COMPILED ?= 16 17
# The version that is also tested with the server's own assertions; empty: none.
CASSERT ?= 18
PG_CONFIG ?= pg_config

root := $(CURDIR)
tools := $(root)/pgrx-tests/tools

export PATH := $(root)/target/tools/bin:$(PATH):$(HOME)/.cargo/bin
export TRANSMUTE_SERVERS := $(shell $(tools)/servers-dir)
# More than processors: tests mostly wait for workers.
export RUST_TEST_THREADS ?= 3
# Settings of the caller that would make cargo compile everything anew.
unexport CARGO_TARGET_DIR RUSTFLAGS PGRX_PG_CONFIG_PATH

# Plain cargo and cargo pgrx pass different flags, and the tests have other dependencies: each has its place, so that no run
# throws away, or waits for, what another one compiles.
extension_cargo = PGRX_HOME=$(root)/target/pgrx/$(PG) cargo
tests_cargo = CARGO_TARGET_DIR=$(root)/target/harness PG=$(PG) cargo
for_server = --no-default-features --features "pg$(PG)$(if $(WITH), $(WITH))"

say = @printf '\n== %s\n' '$(1)'
MAKEFLAGS += --no-print-directory

.NOTPARALLEL:
.PHONY: build help servers install installcheck test suites test-unit test-golden test-server test-e2e test-faults test-cassert test-harness \
	check-compile lint lint-extension faults format demo bench clean clean-kept clean-servers

build: servers ## the extension, into the private server of version PG
	$(tools)/install-extension $(PG)

help: ## this list
	@sed -n 's/^\([a-z0-9 -]*\):.*## /\1	/p' Makefile | expand -t 22

servers: ## whatever the machine lacks, and the private server of version PG
	$(tools)/setup $(PG)

install: ## the extension, into the server of PG_CONFIG
	$(tools)/install-into $(PG_CONFIG)

installcheck: ## golden files against what is installed in the server of PG_CONFIG, in a cluster of its own
	TRANSMUTE_PG_CONFIG="$$(command -v $(PG_CONFIG))" $(tests_cargo) test --package transmute-tests --test golden -- regress

# --- tests: level by level, the cheap ones first -----------------------------------------------------------------------

test: ## everything
	$(tools)/setup $(sort $(PG) $(PGS) $(COMPILED)) $(if $(CASSERT),$(CASSERT)-cassert)
	$(MAKE) lint test-unit check-compile
	@set -e; for version in $(PGS); do $(MAKE) suites PG=$$version; done
	$(if $(CASSERT),$(MAKE) test-cassert)

lint: ## formatting, clippy of the extension and of the tests
	$(call say,formatting)
	cargo fmt --all --check
	$(call say,clippy: tests)
	$(tests_cargo) clippy --package transmute-tests --all-targets -- -D warnings
	$(MAKE) lint-extension
	$(MAKE) lint-extension WITH=waitpoints

lint-extension:
	$(call say,clippy: extension$(if $(WITH), with $(WITH)) for PostgreSQL $(PG))
	$(extension_cargo) clippy --package transmute --all-targets $(for_server) -- -D warnings

check-compile: ## the extension compiles for the versions that are not tested
	@set -e; for version in $(COMPILED); do $(MAKE) lint-extension PG=$$version; done

test-unit: ## pure code of the extension, no server
	$(call say,unit tests)
	$(extension_cargo) test --package transmute --lib $(for_server) -- $(TEST)

suites: ## all that needs a server of version PG
	$(call say,PostgreSQL $(PG): the extension as it ships and with waitpoints)
	$(tools)/install-extension $(PG)
	$(tools)/install-extension $(PG) waitpoints
	$(call say,PostgreSQL $(PG): harness; golden files; end to end; servers)
	$(tests_cargo) test --package transmute-tests --no-fail-fast

test-golden: build ## pg_regress and pg_isolation_regress on version PG; TEST=names, ACCEPT=1
	$(tools)/install-extension $(PG) waitpoints
	$(tests_cargo) test --package transmute-tests --test golden

test-e2e test-server test-faults: test-%: servers ## real workers under load; servers that crash; the fault matrix; on version PG, TEST=part of a name
	$(tools)/install-extension $(PG) waitpoints
	$(tests_cargo) test --package transmute-tests --test $* -- $(TEST)

# What touches the server's innards: rows, files, catalogs, locks; not what only our own tables know of.
cassert_e2e = check:: dead_letters dependents load variety
cassert_server = bit minimal decoding

test-cassert: export TRANSMUTE_PG_CONFIG = $(TRANSMUTE_SERVERS)/$(CASSERT)-cassert/bin/pg_config
test-cassert: export PG = $(CASSERT)
test-cassert: ## swaps, races and load on a server with assertions, of version CASSERT; TEST=part of a name
	$(tools)/setup $(CASSERT)-cassert
	$(tools)/install-extension $(CASSERT) cassert
	$(call say,PostgreSQL $(CASSERT) with assertions)
	$(tests_cargo) test --package transmute-tests --test e2e -- $(or $(TEST),$(cassert_e2e))
	$(if $(TEST),,$(tests_cargo) test --package transmute-tests --test golden -- isolation)
	$(tests_cargo) test --package transmute-tests --test server -- $(or $(TEST),$(cassert_server))

# Each fault by itself, with every invariant after it; CI strikes with one after the other.
faults: export FAULT ?= each
faults: export FAULT_FIGURES = $(root)/target/faults-figures
faults: servers ## every fault, with figures at the end, on version PG; TEST=part of a name, FAULT=f3, CELL=part of a name: docs/faults.md
	$(tools)/install-extension $(PG) waitpoints
	@rm -f $(FAULT_FIGURES)
	$(tests_cargo) test --package transmute-tests --test faults --no-fail-fast -- $(TEST); \
	  status=$$?; $(tools)/fault-figures $(FAULT_FIGURES); exit $$status

test-harness: servers ## the harness itself, without the extension
	$(tests_cargo) test --package transmute-tests --lib --test server -- $(if $(TEST),$(TEST),harness tests)

# ----------------------------------------------------------------------------------------------------------------------

format:
	cargo fmt --all

demo: build ## a hot column changes its type while pgbench runs; SCALE=
	$(tests_cargo) run --release --package transmute-tests --bin demo

bench: build ## speed, side by side with the plain alternatives
	$(tests_cargo) bench --package transmute-tests --benches

clean: ## what was compiled; the servers and the tools stay
	rm -rf target/debug target/release target/harness target/install target/doc

clean-kept: ## the clusters that failed tests left, and none that a test is using
	@for kept in /tmp/transmute-*/keep /dev/shm/transmute-*/keep; do \
		[ ! -e "$$kept" ] || [ -e "$${kept%/keep}/data/postmaster.pid" ] || rm -rf "$${kept%/keep}"; \
	done

clean-servers: ## the private servers
	rm -rf '$(TRANSMUTE_SERVERS)' target/wheels target/pgrx
