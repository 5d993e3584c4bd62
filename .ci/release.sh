#!/usr/bin/env bash
# Builds a release: a package for each architecture, the template that deploys one, a bill of materials and the
# checksums of all. The same commit and the same tools yield the same bytes, in whatever folder.
#
#     .ci/release.sh FOLDER-OF-THE-BUILD FOLDER-OF-THE-RELEASE [ARCHITECTURE...]
#
# The architectures are named as by Lambda: arm64 and x86_64.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath -m "$1") release=$(realpath -m "$2")
shift 2
architectures=("$@")
[ $# -gt 0 ] || architectures=(arm64 x86_64)

name=image-usage-auditor
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
cyclonedx=0.5.9
declare -A targets=([arm64]=aarch64-unknown-linux-gnu [x86_64]=x86_64-unknown-linux-gnu)

# Messages of panics name source files: those of the crates would name the folders of this machine.
home=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$PWD=. --remap-path-prefix=$build=target --remap-path-prefix=$home=cargo"
mkdir -p "$release"
for architecture in "${architectures[@]}"; do
  target=${targets[$architecture]}
  rustup target add "$target"
  PATH="$PWD/.tools/cargo-lambda/bin:$PATH" RUSTFLAGS=$remap CARGO_TARGET_DIR=$build \
    cargo-lambda lambda build --release --locked --target "$target" --bin "$name" --lambda-dir "$build/package/$architecture"
  .ci/package.py "$build/package/$architecture/$name/bootstrap" "$release/$name-$version-$architecture.zip"
done
.ci/release-template.py template.yaml "$version" > "$release/template-release.yaml"
cp member-role.yaml "$release"

# With a fixed date, the bill has no random serial number either.
CARGO_TARGET_DIR="$build/tools" cargo install --quiet --locked --root .tools/cargo-cyclonedx "cargo-cyclonedx@$cyclonedx"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) .tools/cargo-cyclonedx/bin/cargo-cyclonedx cyclonedx \
  --format json --target all --override-filename "$name.cdx"
mv "$name.cdx.json" "$release/$name-$version.cdx.json"
git ls-files --others '*.cdx.json' | xargs --no-run-if-empty rm

cd "$release"
sha256sum -- *.zip *.yaml *.json > SHA256SUMS
cat SHA256SUMS
