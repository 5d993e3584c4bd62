#!/usr/bin/env bash
# Builds a release: for each architecture a package and a bill of materials; the templates; and the checksums of all.
# The same commit and the same tools yield the same bytes, in whatever folder.
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
declare -A targets=([arm64]=aarch64-unknown-linux-gnu [x86_64]=x86_64-unknown-linux-gnu)
# What cargo-lambda chooses for Lambda, but not beside flags of one's own. Without it, the package is a fifth larger.
declare -A cpus=([arm64]=neoverse-n1 [x86_64]=haswell)

# Messages of panics name source files: those of the crates would name the folders of this machine.
home=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$PWD=. --remap-path-prefix=$build=target --remap-path-prefix=$home=cargo"

# With a fixed date, a bill of materials has no random serial number either.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
CARGO_TARGET_DIR="$build/tools" cargo install --quiet --locked --root .tools/cargo-cyclonedx cargo-cyclonedx@0.5.9
mkdir -p "$release"

# Writes the bill of materials of the program for a target; the tool also writes those of the other packages.
write_bill() {
  .tools/cargo-cyclonedx/bin/cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --target "$1" \
    --override-filename "$name.bill"
  sed "s|path+file://$PWD|path+file://.|g" "$name.bill.json" > "$2"
  rm "$name.bill.json" crates/*/"$name.bill.json" tests/*/"$name.bill.json"
}

for architecture in "${architectures[@]}"; do
  target=${targets[$architecture]} file="$release/$name-$version-$architecture"
  rustup target add "$target"
  PATH="$PWD/.tools/cargo-lambda/bin:$PATH" RUSTFLAGS="-C target-cpu=${cpus[$architecture]} $remap" CARGO_TARGET_DIR=$build \
    cargo-lambda lambda build --release --locked --target "$target" --bin "$name" --lambda-dir "$build/package/$architecture"
  .ci/package.py "$build/package/$architecture/$name/bootstrap" "$file.zip"
  write_bill "$target" "$file.cdx.json"
done
.ci/release-template.py template.yaml "$version" > "$release/template-release.yaml"
cp member-role.yaml "$release"

cd "$release"
sha256sum -- *.zip *.yaml *.json > SHA256SUMS
cat SHA256SUMS
