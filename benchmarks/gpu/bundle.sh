#!/usr/bin/env bash
# What a bare checkout lacks beside PyTorch, unpacked into build/bare-site on a machine that has a network:
#   benchmarks/gpu/bundle.sh [PYTHON_VERSION [PLATFORM]]        default: 3.12 manylinux_2_17_x86_64
# Only pydantic and what it needs; git ignores build/, so copy build/bare-site along with the checkout. Then
#   PYTHONPATH=.:build/bare-site python3 train/fit.py RECIPE.yaml --data DATA
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
version="${1:-3.12}" platform="${2:-manylinux_2_17_x86_64}"
site="$root/build/bare-site"
mkdir -p "$root/build"
partial="$(mktemp -d "$root/build/bare-site.XXXXXX")"
trap 'rm -rf "$partial"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$partial" --only-binary=:all: \
    --implementation cp --python-version "$version" --platform "$platform" -c "$root/constraints.txt" \
    "$(sed -n 's/^ *"\(pydantic[^"]*\)",$/\1/p' "$root/pyproject.toml")"
chmod 755 "$partial"
rm -rf "$site"
mv "$partial" "$site"
echo "$site: $(cd "$site" && ls -d -- *.dist-info | sed 's/\.dist-info$//' | tr '\n' ' ')for Python $version, $platform"
