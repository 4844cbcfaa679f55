#include "channel_gate.h"

#include <kernels/cuda.h>

#include <stdexcept>
#include <string>

namespace irforge::tensorrt
{

using namespace nvinfer1;

namespace
{

ChannelGateProblem problem_of(Encoding const& encoding, Dims const& x, Dims const& w1, Dims const& w2)
{
    Shape const shape = shape_of("X", x);
    Shape const first = shape_of("W1", w1);
    Shape const expected_first{first.batch, shape.channels, 1, 1};
    Shape const expected_second{shape.channels, first.batch, 1, 1};
    if (!(first == expected_first) || !(shape_of("W2", w2) == expected_second))
    {
        throw std::invalid_argument("W1 must be h x C x 1 x 1 and W2 C x h x 1 x 1, found X " + text(x) + ", W1 "
            + text(w1) + ", W2 " + text(w2));
    }
    ChannelGateProblem problem;
    problem.shape = shape;
    problem.type = type_of(encoding);
    problem.layout = layout_of(encoding);
    problem.hidden = first.batch;
    if (char const* const reason = refusal(problem); reason != nullptr)
    {
        throw std::invalid_argument(reason);
    }
    return problem;
}

ChannelGateProblem problem_of(PluginTensorDesc const* inputs, PluginTensorDesc const& output)
{
    ChannelGateProblem const problem
        = problem_of(encoding_of(inputs[0]), inputs[0].dims, inputs[1].dims, inputs[2].dims);
    if (!(shape_of("Y", output.dims) == problem.shape))
    {
        throw std::invalid_argument(
            "Y must have the shape of X, found X " + text(inputs[0].dims) + ", Y " + text(output.dims));
    }
    return problem;
}

} // namespace

ChannelGate::ChannelGate()
    : Plugin{"ChannelGate"}
{
}

std::unique_ptr<Plugin> ChannelGate::copy() const
{
    return std::make_unique<ChannelGate>(*this);
}

std::vector<Combination> const& ChannelGate::combinations() const
{
    constexpr Encoding float_linear{DataType::kFLOAT, TensorFormat::kLINEAR};
    constexpr Encoding half_linear{DataType::kHALF, TensorFormat::kLINEAR};
    constexpr Encoding half_hwc8{DataType::kHALF, TensorFormat::kHWC8};
    static std::vector<Combination> const all{
        {1, {float_linear, float_linear, float_linear, float_linear}},
        {1, {half_linear, half_linear, half_linear, half_linear}},
        {8, {half_hwc8, half_linear, half_linear, half_hwc8}},
    };
    return all;
}

DimsExprs ChannelGate::output_shape(DimsExprs const* inputs, IExprBuilder& /*expressions*/) const
{
    return inputs[0];
}

std::size_t ChannelGate::workspace_bytes(DynamicPluginTensorDesc const* inputs) const
{
    return channel_gate_workspace(
        problem_of(encoding_of(inputs[0].desc), inputs[0].max, inputs[1].max, inputs[2].max));
}

void ChannelGate::check_shapes(PluginTensorDesc const* inputs, PluginTensorDesc const& output) const
{
    problem_of(inputs, output);
}

cudaError_t ChannelGate::launch(PluginTensorDesc const* input_descs, PluginTensorDesc const& output_desc,
    void const* const* inputs, void* output, void* workspace, cudaStream_t stream) const
{
    ChannelGateProblem const problem = problem_of(input_descs, output_desc);
    if (workspace == nullptr)
    {
        throw std::invalid_argument("was given no workspace");
    }
    return channel_gate_cuda(problem, inputs[0], inputs[1], inputs[2], output, workspace, stream);
}

Creator channel_gate_creator()
{
    return {"ChannelGate", {},
        [](Fields const&) -> std::unique_ptr<Plugin> { return std::make_unique<ChannelGate>(); }};
}

} // namespace irforge::tensorrt
