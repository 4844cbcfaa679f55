#!/usr/bin/env bash
# Every check and figure that needs an NVIDIA GPU, in under 10 minutes, from a bare checkout:
#   benchmarks/gpu/run.sh OUT [--checkpoint WEIGHTS.safetensors] [--model MODEL.onnx]... [--only STEP]...
# It needs Python with PyTorch and NumPy, and a CUDA toolkit for the kernels; whatever else it finds adds its figures.
# OUT/gpu.json holds them for benchmarks/gpu/render.py. Without a GPU it says so and ends with 5.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# What bundle.sh brought is made for one version of Python, and only for a machine that lacks it.
if [ -d "$root/build/bare-site" ] && ! "$python" -c 'import pydantic' 2>/dev/null; then
    PYTHONPATH="$PYTHONPATH:$root/build/bare-site"
fi
exec "$python" "$root/benchmarks/gpu/validate.py" "$@"
