#include "spatial_gate.h"

#include <kernels/cuda.h>

#include <limits>
#include <stdexcept>
#include <string>

namespace irforge::tensorrt
{

using namespace nvinfer1;

namespace
{

SpatialGateProblem problem_of(Encoding const& encoding, Dims const& x, Dims const& w)
{
    Shape const weight = shape_of("W", w);
    if (weight.batch != 1 || weight.channels != 2 || weight.height != weight.width
        || weight.width > std::numeric_limits<std::int32_t>::max())
    {
        throw std::invalid_argument("W must be 1 x 2 x k x k, found " + text(w));
    }
    SpatialGateProblem problem;
    problem.shape = shape_of("X", x);
    problem.type = type_of(encoding);
    problem.layout = layout_of(encoding);
    problem.kernel = static_cast<std::int32_t>(weight.width);
    if (char const* const reason = refusal(problem); reason != nullptr)
    {
        throw std::invalid_argument(reason);
    }
    return problem;
}

SpatialGateProblem problem_of(PluginTensorDesc const* inputs, PluginTensorDesc const& output)
{
    SpatialGateProblem const problem = problem_of(encoding_of(inputs[0]), inputs[0].dims, inputs[1].dims);
    if (!(shape_of("Y", output.dims) == problem.shape))
    {
        throw std::invalid_argument(
            "Y must have the shape of X, found X " + text(inputs[0].dims) + ", Y " + text(output.dims));
    }
    return problem;
}

} // namespace

SpatialGate::SpatialGate()
    : Plugin{"SpatialGate"}
{
}

std::unique_ptr<Plugin> SpatialGate::copy() const
{
    return std::make_unique<SpatialGate>(*this);
}

std::vector<Combination> const& SpatialGate::combinations() const
{
    constexpr Encoding float_linear{DataType::kFLOAT, TensorFormat::kLINEAR};
    constexpr Encoding half_linear{DataType::kHALF, TensorFormat::kLINEAR};
    constexpr Encoding half_hwc8{DataType::kHALF, TensorFormat::kHWC8};
    static std::vector<Combination> const all{
        {1, {float_linear, float_linear, float_linear}},
        {1, {half_linear, half_linear, half_linear}},
        {8, {half_hwc8, half_linear, half_hwc8}},
    };
    return all;
}

DimsExprs SpatialGate::output_shape(DimsExprs const* inputs, IExprBuilder& /*expressions*/) const
{
    return inputs[0];
}

std::size_t SpatialGate::workspace_bytes(DynamicPluginTensorDesc const* inputs) const
{
    return spatial_gate_workspace(problem_of(encoding_of(inputs[0].desc), inputs[0].max, inputs[1].max));
}

void SpatialGate::check_shapes(PluginTensorDesc const* inputs, PluginTensorDesc const& output) const
{
    problem_of(inputs, output);
}

cudaError_t SpatialGate::launch(PluginTensorDesc const* input_descs, PluginTensorDesc const& output_desc,
    void const* const* inputs, void* output, void* workspace, cudaStream_t stream) const
{
    SpatialGateProblem const problem = problem_of(input_descs, output_desc);
    if (workspace == nullptr && spatial_gate_workspace(problem) > 0)
    {
        throw std::invalid_argument("was given no workspace");
    }
    return spatial_gate_cuda(problem, inputs[0], inputs[1], output, workspace, stream);
}

Creator spatial_gate_creator()
{
    return {"SpatialGate", {},
        [](Fields const&) -> std::unique_ptr<Plugin> { return std::make_unique<SpatialGate>(); }};
}

} // namespace irforge::tensorrt
