#!/usr/bin/env bash
# Checks how a release is made: its template, with SAM and cfn-lint, and its package.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

.ci/release-template.py template.yaml 0.0.0 > "$folder/template-release.yaml"
AWS_DEFAULT_REGION=us-east-1 .tools/sam/bin/sam validate --lint --template-file "$folder/template-release.yaml"
.tools/sam/bin/cfn-lint "$folder/template-release.yaml"
.tools/sam/bin/python tests/release_check.py
