// What the ops have in common: inputs of one type, one output, a kernel on the CPU or on the GPU, errors as one line.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <kernels/problem.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace irforge::ort
{

// The oldest ONNX Runtime that is served: what is asked of it and what it is given are of this version.
constexpr std::uint32_t kApiVersion = 18;
static_assert(ORT_API_VERSION >= kApiVersion, "irforge needs the headers of ONNX Runtime 1.18 or later");

enum class Device
{
    kCpu,
    kCuda,
};

// What a kernel is told about the node that it computes.
struct Node
{
    OrtKernelInfo const* info;
    Type input;
    Type output;
    Device device;
};

constexpr ONNXTensorElementDataType onnx_type(Type type)
{
    return type == Type::kFloat ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
        : type == Type::kHalf   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
}

template <typename Work>
OrtStatusPtr status_of(char const* op, Work work) noexcept
{
    try
    {
        work();
        return nullptr;
    }
    catch (Ort::Exception const& error)
    {
        return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), (std::string(op) + ": " + error.what()).c_str());
    }
    catch (std::exception const& error)
    {
        return Ort::GetApi().CreateStatus(ORT_RUNTIME_EXCEPTION, (std::string(op) + ": " + error.what()).c_str());
    }
}

// Throws what is to become the node's error.
[[noreturn]] void refuse(std::string const& why);

// The shape of a tensor of four dimensions; refuses any other.
Shape shape_of(Ort::ConstValue const& tensor, char const* name);

std::string text_of(Shape const& shape);

// Runs `work(first, last)` over shares of 0..total on the threads of the session. `work` must not throw.
template <typename Work>
void in_shares(Ort::KernelContext const& context, std::int64_t total, std::int64_t share, Work const& work)
{
    struct Job
    {
        std::int64_t total;
        std::int64_t share;
        Work const& work;
    };
    Job job{total, share, work};
    auto const run = [](void* data, std::size_t index)
    {
        Job const& job = *static_cast<Job*>(data);
        std::int64_t const first = static_cast<std::int64_t>(index) * job.share;
        job.work(first, first + job.share < job.total ? first + job.share : job.total);
    };
    context.ParallelFor(run, static_cast<std::size_t>((total + share - 1) / share), 0, &job);
}

// A dimension while a graph is loaded: a number or a name.
struct Dimension
{
    std::int64_t number; // -1 for a name
    std::string name;

    bool is_number() const
    {
        return number >= 0;
    }
};

using Dimensions = std::vector<Dimension>;

struct TypedDimensions
{
    ONNXTensorElementDataType type;
    Dimensions dimensions; // empty unless there are four and each has a number or a name
};

TypedDimensions input_dimensions(OrtShapeInferContext* context, std::size_t index);

void set_output_dimensions(OrtShapeInferContext* context, TypedDimensions const& output);

// Turns what a kernel throws into a status, and counts what it computes.
template <typename Kernel>
class Reporting : public Kernel
{
public:
    using Kernel::Kernel;

    OrtStatusPtr ComputeV2(OrtKernelContext* context) const
    {
        return status_of(Kernel::kName,
            [&]
            {
                this->compute(context);
                Kernel::calls.fetch_add(1, std::memory_order_relaxed);
            });
    }
};

// A Kernel has kName, kInputs, calls, Kernel(Node), compute(OrtKernelContext*), and
// infer(shape of the first input) -> shape.
template <typename Kernel>
class Op : public Ort::CustomOpBase<Op<Kernel>, Reporting<Kernel>, true>
{
public:
    Op(Type input, Type output, Device device)
        : input_(input)
        , output_(output)
        , device_(device)
    {
        this->version = kApiVersion;
        this->InferOutputShapeFn = [](OrtCustomOp const* op, OrtShapeInferContext* context) -> OrtStatusPtr
        {
            return status_of(Kernel::kName,
                [&]
                {
                    TypedDimensions const first = input_dimensions(context, 0);
                    if (!first.dimensions.empty())
                    {
                        // Of the ops of one name, ONNX Runtime asks the first for every type of input.
                        bool const to_int8 = static_cast<Op const*>(op)->output_ == Type::kInt8;
                        set_output_dimensions(context,
                            {to_int8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : first.type,
                                Kernel::infer(first.dimensions)});
                    }
                });
        };
    }

    char const* GetName() const
    {
        return Kernel::kName;
    }

    char const* GetExecutionProviderType() const
    {
        return device_ == Device::kCuda ? "CUDAExecutionProvider" : nullptr;
    }

    std::size_t GetInputTypeCount() const
    {
        return Kernel::kInputs;
    }

    ONNXTensorElementDataType GetInputType(std::size_t) const
    {
        return onnx_type(input_);
    }

    std::size_t GetOutputTypeCount() const
    {
        return 1;
    }

    ONNXTensorElementDataType GetOutputType(std::size_t) const
    {
        return onnx_type(output_);
    }

    OrtStatusPtr CreateKernelV2(OrtApi const&, OrtKernelInfo const* info, void** kernel) const
    {
        return status_of(Kernel::kName, [&] { *kernel = new Reporting<Kernel>(Node{info, input_, output_, device_}); });
    }

private:
    Type input_;
    Type output_;
    Device device_;
};

} // namespace irforge::ort
