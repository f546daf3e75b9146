#!/bin/sh
# Install the lab's packages with some extras: tools/install.sh ENVIRONMENT EXTRAS [pip's options]
# What is installed already, in the same versions, is not installed again. A read-only environment is used as it is.
set -eu
env=$1 extras=$2
shift 2
stamp="$env/.lab-installed-$extras"
versions=$(cat pyproject.toml constraints.txt | cksum)
enough=$stamp
# The extra `test` brings all that these need as well
case $extras in lab | lab,handin) enough="$env/.lab-installed-test" ;; esac
for one in "$stamp" "$enough"; do
    if [ -f "$one" ] && [ "$(cat "$one")" = "$versions" ]; then
        exit 0
    fi
done
if [ -d "$env" ] && [ ! -w "$env" ]; then
    echo "$env cannot be written: its packages are used as they are"
    exit 0
fi
echo "Installing Python packages into $env: about 2 minutes and 2.4 GB of disk the first time"
if command -v uv >/dev/null 2>&1; then
    VIRTUAL_ENV="$env" uv pip install "$@" -c constraints.txt -e ".[$extras]"
else
    "$env/bin/python" -m pip install --disable-pip-version-check "$@" -c constraints.txt -e ".[$extras]"
fi
echo "$versions" > "$stamp"
