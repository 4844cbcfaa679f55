#!/usr/bin/env bash
# build.sh [BUILD_FOLDER]: builds the native parts and runs their tests, as `make test` does.
# What this machine lacks is fetched as wheels into BUILD_FOLDER/deps, and nowhere else: CMake and Ninja, a CUDA
# compiler where there is no nvcc, TensorRT's headers (NVIDIA's own, which the wheel kernel-lens carries), and ONNX
# Runtime's headers. What cannot be had is named in one line, and the libraries that need it are left out.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${1:-$root/build}
python=${PYTHON:-python3}
mkdir -p "$build/deps"
deps=$(cd "$build/deps" && pwd)

# wheels FOLDER PACKAGE...: unpacked side by side; renamed as a whole, so that an interrupted run leaves nothing.
wheels() {
  local folder=$deps/$1
  shift
  [ -d "$folder" ] && return
  rm -rf "$folder.partial"
  if "$python" -m pip install -q --no-deps --no-compile --target "$folder.partial" "$@"; then
    mv "$folder.partial" "$folder"
  else
    rm -rf "$folder.partial"
    echo "build.sh: no wheels of $*; what needs them is left out" >&2
    return 1
  fi
}

arguments=()
has_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*//p') && printf '3.22\n%s\n' "$version" | sort -V -C
}
if ! has_cmake || ! command -v ninja >/dev/null; then
  # Nothing native is a must: every model runs by the bodies of its operators.
  wheels tools 'cmake>=3.22' 'ninja>=1.11' || exit 0
  export PATH="$deps/tools/bin:$PATH" PYTHONPATH="$deps/tools${PYTHONPATH:+:$PYTHONPATH}"
fi
if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ] && [ -z "${IRFORGE_CUDA_ROOT:-}" ]; then
  if wheels cuda 'nvidia-cuda-nvcc>=13,<14' 'nvidia-cuda-crt>=13,<14' 'nvidia-nvvm>=13,<14' \
      'nvidia-cuda-runtime>=13,<14' 'nvidia-cuda-cccl>=13,<14'; then
    arguments+=("-DIRFORGE_CUDA_ROOT=$deps/cuda/nvidia/cu13")
  fi
fi
if ! compgen -G '/usr/include/*/NvInfer.h' >/dev/null && [ -z "${TENSORRT_ROOT:-}" ]; then
  if wheels tensorrt kernel-lens==2.0.1; then
    arguments+=("-DIRFORGE_TENSORRT_INCLUDE=$deps/tensorrt/kernel_lens/include/tensorrt")
  fi
fi
if [ ! -f /usr/include/onnxruntime/onnxruntime_cxx_api.h ] && [ -z "${ONNXRUNTIME_ROOT:-}" ]; then
  if headers=$("$root/plugins/onnxruntime/fetch_headers.sh" "$deps/onnxruntime"); then
    arguments+=("-DIRFORGE_ORT_INCLUDE=$headers")
  fi
fi

cmake -S "$root" -B "$build" -G Ninja "${arguments[@]}"
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure
