#!/usr/bin/env bash
# Installs the Python packages of a list into an environment of its own. `.complete` in it is a copy of
# the list; an environment that was made from the same list and still works is kept.
#
#     .ci/install-tools.sh LIST FOLDER
set -euo pipefail
list=$1 folder=$2

if cmp --quiet "$list" "$folder/.complete" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  touch "$folder/.complete"
  exit
fi
echo "Installing the tools of $list into $folder"
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --requirement "$list"
cp "$list" "$folder/.complete"
