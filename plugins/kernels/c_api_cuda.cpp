#include "c_api_problem.h"
#include "cuda.h"

using namespace irforge;

char const* irforge_mutual_gate_refusal(irforge_mutual_gate const* problem)
{
    return refusal(problem_of(*problem));
}

char const* irforge_spatial_gate_refusal(irforge_spatial_gate const* problem)
{
    return refusal(problem_of(*problem));
}

char const* irforge_channel_gate_refusal(irforge_channel_gate const* problem)
{
    return refusal(problem_of(*problem));
}

int irforge_mutual_gate_cuda(
    irforge_mutual_gate const* problem, void const* g, void const* l, void* y, void* stream)
{
    if (irforge_mutual_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    return mutual_gate_cuda(problem_of(*problem), g, l, y, static_cast<cudaStream_t>(stream));
}

int irforge_spatial_gate_cuda(irforge_spatial_gate const* problem, void const* x, void const* weight, void* y,
    void* workspace, void* stream)
{
    if (irforge_spatial_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    return spatial_gate_cuda(problem_of(*problem), x, weight, y, workspace, static_cast<cudaStream_t>(stream));
}

std::size_t irforge_spatial_gate_workspace(irforge_spatial_gate const* problem)
{
    return spatial_gate_workspace(problem_of(*problem));
}

int irforge_channel_gate_cuda(irforge_channel_gate const* problem, void const* x, void const* w1, void const* w2,
    void* y, void* workspace, void* stream)
{
    if (irforge_channel_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    return channel_gate_cuda(problem_of(*problem), x, w1, w2, y, workspace, static_cast<cudaStream_t>(stream));
}

std::size_t irforge_channel_gate_workspace(irforge_channel_gate const* problem)
{
    return channel_gate_workspace(problem_of(*problem));
}

char const* irforge_cuda_error(int code)
{
    return cudaGetErrorString(static_cast<cudaError_t>(code));
}
