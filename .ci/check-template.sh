#!/usr/bin/env bash
# Checks the templates: with SAM, cfn-lint and checkov, and against the code that they deploy.
set -euxo pipefail
cd "$(dirname "$0")/.."

AWS_DEFAULT_REGION=us-east-1 .tools/sam/bin/sam validate --lint --template-file template.yaml
.tools/sam/bin/cfn-lint template.yaml member-role.yaml
.tools/checkov/bin/checkov --framework cloudformation --skip-download --compact --quiet \
  --file template.yaml member-role.yaml
.tools/sam/bin/python tests/check_template.py
