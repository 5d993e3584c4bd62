#!/usr/bin/env bash
# Checks that the command line and the archive library depend neither on the EC2 client, which takes
# minutes to compile, nor on the Lambda runtime.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints those dependencies of a package that only the function may have.
function_only_dependencies() {
  cargo tree --locked --package "$1" --edges normal,build --prefix none --format '{p}' |
    { grep -E '^(aws-sdk-ec2|lambda_runtime) ' || true; } | sort -u
}

if [ "$(function_only_dependencies image-usage-auditor | wc -l)" != 2 ]; then
  echo "check-cli: the function itself lacks the crates that this check looks for: have they other names?" >&2
  exit 1
fi
for package in image-usage image-usage-archive; do
  dependencies=$(function_only_dependencies "$package")
  if [ -n "$dependencies" ]; then
    echo "check-cli: $package depends on ${dependencies//$'\n'/, }" >&2
    exit 1
  fi
done
echo "check-cli: image-usage and image-usage-archive depend on neither the EC2 client nor the Lambda runtime"
