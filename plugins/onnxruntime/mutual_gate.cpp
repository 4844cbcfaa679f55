#include "mutual_gate.h"

#include <kernels/cpu.h>
#ifdef IRFORGE_WITH_CUDA
#include <kernels/cuda.h>
#endif

namespace irforge::ort
{
namespace
{

constexpr std::int64_t kShare = 32768; // elements: some tens of microseconds, much more than handing them out costs

float scale(Node const& node, char const* name)
{
    float value = 0.0F;
    Ort::Status const status(Ort::GetApi().KernelInfoGetAttribute_float(node.info, name, &value));
    if (!status.IsOK())
    {
        refuse(std::string("the attribute ") + name + " is missing; it must be a positive float");
    }
    return value;
}

} // namespace

MutualGateKernel::MutualGateKernel(Node const& node)
    : device_(node.device)
{
    problem_.input = node.input;
    problem_.output = node.output;
}

QuantizedMutualGateKernel::QuantizedMutualGateKernel(Node const& node)
    : MutualGateKernel(node)
{
    problem_.scale_g = scale(node, "scale_g");
    problem_.scale_l = scale(node, "scale_l");
    // Scales are known before any shape is: a model with bad ones must not load.
    MutualGateProblem smallest = problem_;
    smallest.shape = {1, 1, 1, 1};
    if (char const* why = refusal(smallest))
    {
        refuse(why);
    }
}

Dimensions MutualGateKernel::infer(Dimensions const& g)
{
    Dimensions y = g;
    y[1] = g[1].is_number() ? Dimension{2 * g[1].number, ""} : Dimension{-1, "2*" + g[1].name};
    return y;
}

void MutualGateKernel::compute(OrtKernelContext* ort_context) const
{
    Ort::KernelContext const context(ort_context);
    Ort::ConstValue const g = context.GetInput(0);
    Ort::ConstValue const l = context.GetInput(1);
    MutualGateProblem problem = problem_;
    problem.shape = shape_of(g, "G");
    Shape const shape_l = shape_of(l, "L");
    auto const [batch, channels, height, width] = problem.shape;
    if (batch != shape_l.batch || channels != shape_l.channels || height != shape_l.height || width != shape_l.width)
    {
        refuse("G is " + text_of(problem.shape) + " and L is " + text_of(shape_l) + "; they must have one shape");
    }
    std::int64_t const elements = batch * channels * height * width;
    void* const y = context.GetOutput(0, {batch, 2 * channels, height, width}).GetTensorMutableRawData();
    if (elements == 0)
    {
        return;
    }
    if (char const* why = refusal(problem))
    {
        refuse(why);
    }
    void const* const data_g = g.GetTensorRawData();
    void const* const data_l = l.GetTensorRawData();
#ifdef IRFORGE_WITH_CUDA
    if (device_ == Device::kCuda)
    {
        auto const stream = static_cast<cudaStream_t>(context.GetGPUComputeStream());
        if (cudaError_t const error = mutual_gate_cuda(problem, data_g, data_l, y, stream); error != cudaSuccess)
        {
            refuse(cudaGetErrorString(error));
        }
        return;
    }
#endif
    in_shares(context, elements, kShare,
        [&](std::int64_t first, std::int64_t last) { mutual_gate_cpu(problem, first, last, data_g, data_l, y); });
}

} // namespace irforge::ort
