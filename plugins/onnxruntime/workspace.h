// Scratch memory on the GPU for one run of a kernel.
#pragma once

#include "op.h"

#include <cuda_runtime_api.h>

#include <cstddef>

namespace irforge::ort
{

// Calls launch(workspace), which queues a kernel on the stream; refuses where CUDA does.
template <typename Launch>
void with_workspace(std::size_t bytes, cudaStream_t stream, Launch launch)
{
    // Allocated and freed in the order of the stream, so several runs at a time share nothing.
    void* workspace = nullptr;
    cudaError_t error = cudaMallocAsync(&workspace, bytes, stream);
    if (error == cudaSuccess)
    {
        error = launch(workspace);
        cudaError_t const freed = cudaFreeAsync(workspace, stream);
        error = error == cudaSuccess ? freed : error;
    }
    if (error != cudaSuccess)
    {
        refuse(cudaGetErrorString(error));
    }
}

} // namespace irforge::ort
