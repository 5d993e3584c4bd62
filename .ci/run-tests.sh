#!/usr/bin/env bash
# Runs the tests with cargo-nextest if it is installed, otherwise with cargo.
#
#     .ci/run-tests.sh SELECTION...
set -euo pipefail
cd "$(dirname "$0")/.."

runner=(cargo test)
if cargo nextest --version >/dev/null 2>&1; then
  runner=(cargo nextest run)
fi
set -x
"${runner[@]}" "$@"
