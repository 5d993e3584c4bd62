#!/usr/bin/env bash
# Fuzzes each target. New inputs go to tests/fuzz/found, inputs that fail to tests/fuzz/artifacts.
#
#     .ci/fuzz.sh FOLDER-OF-THE-BUILD SECONDS-PER-TARGET
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2

# libFuzzer's instrumentation is a nightly option of the compiler; this lets the stable one accept it.
export RUSTC_BOOTSTRAP=1
for target in payload page; do
  mkdir -p "tests/fuzz/found/$target"
  .tools/cargo-fuzz/bin/cargo-fuzz run --fuzz-dir tests/fuzz --target-dir "$build" --sanitizer none \
    "$target" "tests/fuzz/found/$target" "tests/fuzz/corpus/$target" \
    -- -max_total_time="$seconds" -timeout=10
done
