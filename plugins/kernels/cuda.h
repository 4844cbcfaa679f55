// The kernels on the GPU. Everything is queued on the stream; nothing waits and nothing is allocated.
#pragma once

#include <cuda_runtime_api.h>

#include "problem.h"

namespace irforge
{

// Pointers are to device memory of the problem's types and shapes. `refusal(problem)` must be nullptr.
cudaError_t mutual_gate_cuda(
    MutualGateProblem const& problem, void const* g, void const* l, void* y, cudaStream_t stream);

// `workspace`: spatial_gate_workspace(problem) bytes of device memory, 16-byte aligned.
cudaError_t spatial_gate_cuda(SpatialGateProblem const& problem, void const* x, void const* weight, void* y,
    void* workspace, cudaStream_t stream);

// `workspace`: channel_gate_workspace(problem) bytes of device memory, 16-byte aligned. The same input gives the same
// bits.
cudaError_t channel_gate_cuda(ChannelGateProblem const& problem, void const* x, void const* w1, void const* w2,
    void* y, void* workspace, cudaStream_t stream);

} // namespace irforge
