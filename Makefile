SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps of `test` are in the order in which a failure is cheapest to find.
.NOTPARALLEL:
.PHONY: help demo test fmt clippy doc tools clean-tools \
        check-format check-rust check-doc check-boto3 check-template

# One selection of packages and targets for every build: with another one, features would resolve
# differently and the EC2 client, which takes minutes, would be compiled again.
SELECTION := --workspace --all-targets --locked
BINARIES := $(or $(CARGO_TARGET_DIR),target)/debug

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

test: check-format clippy check-rust check-doc check-boto3 check-template ## Run every check; stops at the first that fails
	@echo "make test: every check passed"

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

check-template: .tools/sam/.complete .tools/checkov/.complete
	AWS_DEFAULT_REGION=us-east-1 .tools/sam/bin/sam validate --lint --template-file template.yaml
	.tools/sam/bin/cfn-lint template.yaml member-role.yaml
	.tools/checkov/bin/checkov --framework cloudformation --skip-download --compact --quiet \
	  --file template.yaml member-role.yaml
	.tools/sam/bin/python tests/check_template.py

tools: $(patsubst .ci/%.txt,.tools/%/.complete,$(wildcard .ci/*.txt)) ## Install the pinned tools into .tools

# One environment for each list, because their pins exclude each other. The file says that pip got
# to the end; a changed list starts afresh.
.tools/%/.complete: .ci/%.txt
	@echo "Installing the tools of $< into .tools/$*"
	rm -rf .tools/$*
	python3 -m venv .tools/$*
	.tools/$*/bin/python -m pip install --quiet --no-input --disable-pip-version-check --requirement $<
	touch $@

clean-tools: ## Remove the installed tools
	rm -rf .tools
