#include "spatial_gate.h"

#include <kernels/cpu.h>
#ifdef IRFORGE_WITH_CUDA
#include "workspace.h"

#include <kernels/cuda.h>
#endif

#include <algorithm>

namespace irforge::ort
{
namespace
{

// Rows that a thread takes at a time: enough work to hand out, and few rows pooled twice at the borders.
std::int64_t share_of(SpatialGateProblem const& problem)
{
    constexpr std::int64_t kElements = 65536;
    std::int64_t const row = problem.shape.width * problem.shape.channels;
    return std::max<std::int64_t>(4 * problem.kernel, kElements / row);
}

} // namespace

SpatialGateKernel::SpatialGateKernel(Node const& node)
    : type_(node.input)
    , device_(node.device)
{
}

Dimensions SpatialGateKernel::infer(Dimensions const& x)
{
    return x;
}

void SpatialGateKernel::compute(OrtKernelContext* ort_context) const
{
    Ort::KernelContext const context(ort_context);
    Ort::ConstValue const x = context.GetInput(0);
    Ort::ConstValue const weight = context.GetInput(1);
    SpatialGateProblem problem;
    problem.shape = shape_of(x, "X");
    problem.type = type_;
    Shape const shape_w = shape_of(weight, "W");
    auto const [batch, channels, height, width] = problem.shape;
    bool const odd_square = shape_w.height == shape_w.width && shape_w.height % 2 == 1;
    if (shape_w.batch != 1 || shape_w.channels != 2 || !odd_square || shape_w.height > kLargestSpatialKernel)
    {
        refuse("W is " + text_of(shape_w) + "; it must be 1x2xKxK with K odd and at most "
            + std::to_string(kLargestSpatialKernel));
    }
    problem.kernel = static_cast<std::int32_t>(shape_w.height);

    void* const y = context.GetOutput(0, {batch, channels, height, width}).GetTensorMutableRawData();
    if (batch * channels * height * width == 0)
    {
        return;
    }
    if (char const* why = refusal(problem))
    {
        refuse(why);
    }
    void const* const data_x = x.GetTensorRawData();
    void const* const data_w = weight.GetTensorRawData();
#ifdef IRFORGE_WITH_CUDA
    if (device_ == Device::kCuda)
    {
        auto const stream = static_cast<cudaStream_t>(context.GetGPUComputeStream());
        with_workspace(spatial_gate_workspace(problem), stream,
            [&](void* workspace) { return spatial_gate_cuda(problem, data_x, data_w, y, workspace, stream); });
        return;
    }
#endif
    in_shares(context, batch * height, share_of(problem),
        [&](std::int64_t first, std::int64_t last) { spatial_gate_cpu(problem, first, last, data_x, data_w, y); });
}

} // namespace irforge::ort
