#!/usr/bin/env bash
# The documented door `scripts/build_docker.sh --version NAME --tag TAG`: `comfypin image build` under its first flags.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
words=()
for word in "$@"; do
    case "$word" in
        --version) words+=(--release) ;;
        --version=*) words+=("--release=${word#--version=}") ;;
        *) words+=("$word") ;;
    esac
done
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
# The releases of the checkout are found wherever the door is called from.
cd "$root"
PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m comfypin.cli.main image build "${words[@]}"
