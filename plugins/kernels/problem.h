// What the kernels compute, in which types and layouts; free of CUDA, TensorRT and ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>

namespace irforge
{

// The values are those of nvinfer1::DataType.
enum class Type : std::int32_t
{
    kFloat = 0,
    kHalf = 1,
    kInt8 = 2,
};

constexpr std::size_t size_of(Type type)
{
    return type == Type::kFloat ? 4 : type == Type::kHalf ? 2 : 1;
}

// How N x C x H x W lies in memory.
enum class Layout : std::int32_t
{
    kLinear, // N, C, H, W
    kHwc8,   // N, H, W, C with C a multiple of 8 (TensorRT's kHWC8 for such C)
    kChw32,  // N, C/32, H, W, 32 with C a multiple of 32 (TensorRT's kCHW32)
};

struct Shape
{
    std::int64_t batch;
    std::int64_t channels;
    std::int64_t height;
    std::int64_t width;
};

// Y = concat over channels of [G * sigmoid(L) ; L * sigmoid(G)], computed in FP32 and rounded once.
// An int8 output holds round-half-to-even(value / scale) of its half, saturated to -128..127.
struct MutualGateProblem
{
    Shape shape; // of G and of L; Y has twice the channels
    Type input = Type::kFloat;
    Type output = Type::kFloat;
    Layout input_layout = Layout::kLinear;
    Layout output_layout = Layout::kLinear;
    float scale_g = 0.0F; // int8 output only: of the half G * sigmoid(L)
    float scale_l = 0.0F; // int8 output only: of the half L * sigmoid(G)
};

// Y = X * sigmoid(conv(concat[mean over channels of X ; max over channels of X], W)), computed in FP32 and rounded
// once. W is 1 x 2 x k x k with k odd, stride 1, zero padding k/2, no bias, of the same type as X.
struct SpatialGateProblem
{
    Shape shape; // of X and of Y
    Type type = Type::kFloat;
    Layout layout = Layout::kLinear;
    std::int32_t kernel = 7;
};

constexpr std::int32_t kLargestSpatialKernel = 15;

// Y = X * sigmoid(m(mean over the map of X) + m(maximum over the map of X)) with m(v) = W2 relu(W1 v), computed in FP32
// and rounded once. W1 is h x C x 1 x 1, W2 is C x h x 1 x 1, no biases, both linear and of the same type as X.
struct ChannelGateProblem
{
    Shape shape; // of X and of Y
    Type type = Type::kFloat;
    Layout layout = Layout::kLinear;
    std::int64_t hidden = 1; // h
};

// Why a problem cannot be computed, in one line; nullptr if it can.
char const* refusal(MutualGateProblem const& problem);
char const* refusal(SpatialGateProblem const& problem);
char const* refusal(ChannelGateProblem const& problem);

// Bytes of scratch memory that spatial_gate_cuda and channel_gate_cuda need: for one layout, never more for a smaller
// shape.
std::size_t spatial_gate_workspace(SpatialGateProblem const& problem);
std::size_t channel_gate_workspace(ChannelGateProblem const& problem);

} // namespace irforge
