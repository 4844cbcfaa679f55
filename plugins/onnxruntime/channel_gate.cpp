#include "channel_gate.h"

#include <kernels/cpu.h>
#ifdef IRFORGE_WITH_CUDA
#include "workspace.h"

#include <kernels/cuda.h>
#endif

#include <algorithm>
#include <vector>

namespace irforge::ort
{
namespace
{

// Maps that a thread takes at a time.
std::int64_t share_of(ChannelGateProblem const& problem)
{
    constexpr std::int64_t kElements = 65536;
    return std::max<std::int64_t>(1, kElements / (problem.shape.height * problem.shape.width));
}

void on_cpu(Ort::KernelContext const& context, ChannelGateProblem const& problem, void const* x, void const* w1,
    void const* w2, void* y)
{
    std::int64_t const maps = problem.shape.batch * problem.shape.channels;
    std::int64_t const share = share_of(problem);
    std::vector<float> pooled(static_cast<std::size_t>(2 * maps));
    std::vector<float> gates(static_cast<std::size_t>(maps));
    in_shares(context, maps, share, [&](std::int64_t first, std::int64_t last)
        { channel_gate_pool_cpu(problem, first, last, x, pooled.data()); });
    channel_gate_gates_cpu(problem, w1, w2, pooled.data(), gates.data());
    in_shares(context, maps, share, [&](std::int64_t first, std::int64_t last)
        { channel_gate_multiply_cpu(problem, first, last, x, gates.data(), y); });
}

} // namespace

ChannelGateKernel::ChannelGateKernel(Node const& node)
    : type_(node.input)
    , device_(node.device)
{
}

Dimensions ChannelGateKernel::infer(Dimensions const& x)
{
    return x;
}

void ChannelGateKernel::compute(OrtKernelContext* ort_context) const
{
    Ort::KernelContext const context(ort_context);
    Ort::ConstValue const x = context.GetInput(0);
    Ort::ConstValue const w1 = context.GetInput(1);
    Ort::ConstValue const w2 = context.GetInput(2);
    ChannelGateProblem problem;
    problem.shape = shape_of(x, "X");
    problem.type = type_;
    auto const [batch, channels, height, width] = problem.shape;
    Shape const first = shape_of(w1, "W1");
    Shape const second = shape_of(w2, "W2");
    bool const fit = first.channels == channels && second.batch == channels && second.channels == first.batch;
    if (!fit || first.height != 1 || first.width != 1 || second.height != 1 || second.width != 1)
    {
        refuse("W1 is " + text_of(first) + " and W2 is " + text_of(second) + "; they must be Hx"
            + std::to_string(channels) + "x1x1 and " + std::to_string(channels) + "xHx1x1");
    }
    problem.hidden = first.batch;

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
    void const* const data_w1 = w1.GetTensorRawData();
    void const* const data_w2 = w2.GetTensorRawData();
#ifdef IRFORGE_WITH_CUDA
    if (device_ == Device::kCuda)
    {
        auto const stream = static_cast<cudaStream_t>(context.GetGPUComputeStream());
        with_workspace(channel_gate_workspace(problem), stream, [&](void* workspace)
            { return channel_gate_cuda(problem, data_x, data_w1, data_w2, y, workspace, stream); });
        return;
    }
#endif
    on_cpu(context, problem, data_x, data_w1, data_w2, y);
}

} // namespace irforge::ort
