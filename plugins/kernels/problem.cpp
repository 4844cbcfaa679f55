#include "problem.h"

#include "arithmetic.h"

#include <limits>

namespace irforge
{
namespace
{

constexpr char const* kNotBy8 = "the hwc8 layout needs a number of channels that 8 divides: use the linear layout";

char const* shape_refusal(Shape const& shape)
{
    if (shape.batch < 1 || shape.channels < 1 || shape.height < 1 || shape.width < 1)
    {
        return "every dimension of N x C x H x W must be at least 1";
    }
    // Kernels index within one image in 32 bits; the factors are bounded first so that no product overflows.
    constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
    if (shape.batch > kLargest || shape.channels > kLargest || shape.height > kLargest || shape.width > kLargest
        || shape.height * shape.width > kLargest || shape.height * shape.width * shape.channels > kLargest)
    {
        return "one image has more than 2^31 - 1 elements: split the height or the width";
    }
    return nullptr;
}

bool is_scale(float scale)
{
    return scale >= kLeastScale && scale <= kGreatestScale;
}

} // namespace

char const* refusal(MutualGateProblem const& problem)
{
    if (char const* text = shape_refusal(problem.shape))
    {
        return text;
    }
    if (problem.input != Type::kFloat && problem.input != Type::kHalf)
    {
        return "MutualGate reads float32 or float16: cast G and L to one of them";
    }
    if (problem.output != Type::kFloat && problem.output != Type::kHalf && problem.output != Type::kInt8)
    {
        return "MutualGate writes float32, float16 or int8: ask for one of them";
    }
    if (problem.output == Type::kInt8 && !(is_scale(problem.scale_g) && is_scale(problem.scale_l)))
    {
        return "an int8 output needs scale_g and scale_l, both positive and between 1e-36 and 1e+36";
    }

    Layout const from = problem.input_layout;
    Layout const to = problem.output_layout;
    if (from == Layout::kLinear && to == Layout::kLinear)
    {
        return nullptr;
    }
    bool const to_hwc8 = from == Layout::kHwc8 && to == Layout::kHwc8 && problem.output == Type::kHalf;
    bool const to_chw32 = from == Layout::kHwc8 && to == Layout::kChw32 && problem.output == Type::kInt8;
    if (problem.input != Type::kHalf || !(to_hwc8 || to_chw32))
    {
        return "MutualGate goes from linear to linear, from hwc8 float16 to hwc8 float16, or from hwc8 float16 to "
               "chw32 int8: choose one of these";
    }
    if (to_hwc8 && problem.shape.channels % 8 != 0)
    {
        return kNotBy8;
    }
    if (to_chw32 && problem.shape.channels % 32 != 0)
    {
        return "the chw32 layout needs a number of channels that 32 divides: use the linear layout";
    }
    return nullptr;
}

char const* refusal(SpatialGateProblem const& problem)
{
    if (char const* text = shape_refusal(problem.shape))
    {
        return text;
    }
    if (problem.type != Type::kFloat && problem.type != Type::kHalf)
    {
        return "SpatialGate computes on float32 or float16: cast X and W to one of them";
    }
    if (problem.kernel < 1 || problem.kernel % 2 == 0 || problem.kernel > kLargestSpatialKernel)
    {
        return "SpatialGate needs W of 1 x 2 x k x k with k odd and at most 15";
    }
    if (problem.layout == Layout::kLinear)
    {
        return nullptr;
    }
    if (problem.layout != Layout::kHwc8 || problem.type != Type::kHalf)
    {
        return "SpatialGate computes in the linear layout, or in hwc8 with float16: choose one of these";
    }
    if (problem.shape.channels % 8 != 0)
    {
        return kNotBy8;
    }
    return nullptr;
}

char const* refusal(ChannelGateProblem const& problem)
{
    if (char const* text = shape_refusal(problem.shape))
    {
        return text;
    }
    if (problem.type != Type::kFloat && problem.type != Type::kHalf)
    {
        return "ChannelGate computes on float32 or float16: cast X, W1 and W2 to one of them";
    }
    constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
    if (problem.hidden < 1 || problem.hidden > kLargest / problem.shape.channels)
    {
        return "ChannelGate needs W1 of h x C x 1 x 1 with h at least 1 and at most 2^31 - 1 elements";
    }
    if (problem.layout == Layout::kLinear)
    {
        return nullptr;
    }
    if (problem.layout != Layout::kHwc8 || problem.type != Type::kHalf)
    {
        return "ChannelGate computes in the linear layout, or in hwc8 with float16: choose one of these";
    }
    if (problem.shape.channels % 8 != 0)
    {
        return kNotBy8;
    }
    return nullptr;
}

std::size_t spatial_gate_workspace(SpatialGateProblem const& problem)
{
    Shape const& shape = problem.shape;
    return static_cast<std::size_t>(shape.batch * shape.height * shape.width) * 2 * sizeof(float);
}

} // namespace irforge
