#!/usr/bin/env bash
# Write both lock files: exact versions with hashes, no address of any index.
#
#   scripts/lock.sh             keep what is pinned, add and drop what pyproject.toml asks for
#   scripts/lock.sh --upgrade   take the newest versions that fit together
#
# requirements.lock is for users, requirements-dev.lock adds what tests and checks need.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-$(command -v uv || true)}
if [ -z "$uv" ]; then
    tools=.cache/lock-tools
    [ -x "$tools/bin/uv" ] || { "${PYTHON:-python3}" -m venv "$tools" && "$tools/bin/pip" install --quiet uv; }
    uv=$tools/bin/uv
fi

compile() { # FILE [OPTION …]
    local out=$1
    shift
    "$uv" pip compile --quiet pyproject.toml --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --output-file "$out" "$@"
    if grep -nE '://|^--(index|extra-index|find-links)|file:' "$out"; then
        echo "lock: $out holds an address (above); it must not" >&2
        exit 1
    fi
}

compile requirements.lock --extra postgres --extra s3 "$@"
compile requirements-dev.lock --extra postgres --extra s3 --extra lancedb --extra pgvector \
    --extra qdrant --extra parquet --extra ray --group dev --constraint requirements.lock "$@"
echo "lock: wrote requirements.lock and requirements-dev.lock"
