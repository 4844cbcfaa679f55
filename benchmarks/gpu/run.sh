#!/usr/bin/env bash
# Every check that needs an NVIDIA GPU, in under 10 minutes:
#   benchmarks/gpu/run.sh OUT [--checkpoint WEIGHTS.safetensors] [--model MODEL.onnx]...
# OUT/gpu.json then holds the figures for docs/gpu-validation.md. Without a GPU it says so and ends with 5.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
exec "$python" "$root/benchmarks/gpu/validate.py" "$@"
