#!/usr/bin/env bash
# Builds the package as it is deployed, for arm64. Builds nothing if the compiler has no such target.
#
#     .ci/build-arm64-package.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1

if ! rustup target add aarch64-unknown-linux-gnu; then
  echo "bench: the compiler has no target aarch64-unknown-linux-gnu: no package for arm64"
  exit
fi
export PATH="$PWD/.tools/cargo-lambda/bin:$PATH"
cargo-lambda lambda build --release --arm64 --locked --bin image-usage-auditor --lambda-dir "$folder"
