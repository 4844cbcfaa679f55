#include "mutual_gate.h"

#include "fields.h"

#include <kernels/cuda.h>

#include <stdexcept>
#include <string>

namespace irforge::tensorrt
{

using namespace nvinfer1;

namespace
{

constexpr Encoding kFloatLinear{DataType::kFLOAT, TensorFormat::kLINEAR};
constexpr Encoding kHalfLinear{DataType::kHALF, TensorFormat::kLINEAR};
constexpr Encoding kHalfHwc8{DataType::kHALF, TensorFormat::kHWC8};
constexpr Encoding kInt8Linear{DataType::kINT8, TensorFormat::kLINEAR};
constexpr Encoding kInt8Chw32{DataType::kINT8, TensorFormat::kCHW32};

void check(MutualGateProblem const& problem)
{
    if (char const* const reason = refusal(problem); reason != nullptr)
    {
        throw std::invalid_argument(reason);
    }
}

} // namespace

MutualGate::MutualGate(std::optional<Scales> scales)
    : Plugin{scales ? "QuantizedMutualGate" : "MutualGate"}
    , scales_{scales}
{
    if (scales_)
    {
        // Asked about one element, the kernels refuse such scales here rather than in an engine.
        MutualGateProblem one;
        one.shape = {1, 1, 1, 1};
        one.output = Type::kInt8;
        one.scale_g = scales_->g;
        one.scale_l = scales_->l;
        check(one);
    }
}

std::unique_ptr<Plugin> MutualGate::copy() const
{
    return std::make_unique<MutualGate>(*this);
}

std::vector<Combination> const& MutualGate::combinations() const
{
    static std::vector<Combination> const plain{
        {1, {kFloatLinear, kFloatLinear, kFloatLinear}},
        {1, {kHalfLinear, kHalfLinear, kHalfLinear}},
        {8, {kHalfHwc8, kHalfHwc8, kHalfHwc8}},
    };
    static std::vector<Combination> const quantized{
        {1, {kFloatLinear, kFloatLinear, kInt8Linear}},
        {1, {kHalfLinear, kHalfLinear, kInt8Linear}},
        {32, {kHalfHwc8, kHalfHwc8, kInt8Chw32}},
    };
    return scales_ ? quantized : plain;
}

std::vector<PluginField> MutualGate::fields() const
{
    if (!scales_)
    {
        return {};
    }
    return {float_field("scale_g", &scales_->g), float_field("scale_l", &scales_->l)};
}

DataType MutualGate::output_type(DataType input) const
{
    return scales_ ? DataType::kINT8 : input;
}

DimsExprs MutualGate::output_shape(DimsExprs const* inputs, IExprBuilder& expressions) const
{
    DimsExprs output = inputs[0];
    IDimensionExpr const* const two = expressions.constant(2);
    output.d[1] = two == nullptr ? nullptr : expressions.operation(DimensionOperation::kPROD, *inputs[0].d[1], *two);
    if (output.d[1] == nullptr)
    {
        throw std::runtime_error("TensorRT gave no expression for the output's channels");
    }
    return output;
}

void MutualGate::check_shapes(PluginTensorDesc const* inputs, PluginTensorDesc const& output) const
{
    problem(inputs, output);
}

cudaError_t MutualGate::launch(PluginTensorDesc const* input_descs, PluginTensorDesc const& output_desc,
    void const* const* inputs, void* output, void* /*workspace*/, cudaStream_t stream) const
{
    return mutual_gate_cuda(problem(input_descs, output_desc), inputs[0], inputs[1], output, stream);
}

MutualGateProblem MutualGate::problem(PluginTensorDesc const* inputs, PluginTensorDesc const& output) const
{
    Shape const shape = shape_of("G", inputs[0].dims);
    Shape const expected{shape.batch, 2 * shape.channels, shape.height, shape.width};
    if (!(shape_of("L", inputs[1].dims) == shape) || !(shape_of("Y", output.dims) == expected))
    {
        throw std::invalid_argument("L must have the shape of G and Y twice its channels, found G "
            + text(inputs[0].dims) + ", L " + text(inputs[1].dims) + ", Y " + text(output.dims));
    }
    MutualGateProblem problem;
    problem.shape = shape;
    problem.input = type_of(encoding_of(inputs[0]));
    problem.output = type_of(encoding_of(output));
    problem.input_layout = layout_of(encoding_of(inputs[0]));
    problem.output_layout = layout_of(encoding_of(output));
    if (scales_)
    {
        problem.scale_g = scales_->g;
        problem.scale_l = scales_->l;
    }
    check(problem);
    return problem;
}

Creator mutual_gate_creator()
{
    return {"MutualGate", {},
        [](Fields const&) -> std::unique_ptr<Plugin> { return std::make_unique<MutualGate>(std::nullopt); }};
}

Creator quantized_mutual_gate_creator()
{
    return {"QuantizedMutualGate", {float_field("scale_g"), float_field("scale_l")},
        [](Fields const& fields) -> std::unique_ptr<Plugin>
        { return std::make_unique<MutualGate>(Scales{fields.positive("scale_g"), fields.positive("scale_l")}); }};
}

} // namespace irforge::tensorrt
