#!/usr/bin/env bash
# Bundles the Lambda function in Node that `make bench` measures.
#
#     .ci/bundle-node-candidate.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1

export PATH="$PWD/.tools/bench/bin:$PATH"
rm -rf "$folder"
mkdir -p "$folder"
cp benches/candidates/node/* "$folder"
cd "$folder"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
npm run --silent bundle -- --outfile=bundle.cjs --log-level=warning
