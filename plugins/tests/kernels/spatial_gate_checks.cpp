#include "check.h"
#include "gates.h"

#include <algorithm>
#include <cmath>

namespace irforge::test
{
namespace
{

std::vector<double> gate(Device& device, SpatialGateProblem const& problem, std::vector<double> const& x,
    std::vector<double> const& weight, int shift = 0)
{
    Shape const weight_shape{1, 2, problem.kernel, problem.kernel};
    Bytes const y = device.spatial_gate(problem, encode(x, problem.type, problem.layout, problem.shape),
        encode(weight, problem.type, Layout::kLinear, weight_shape), shift);
    return decode(y, problem.type, problem.layout, problem.shape);
}

// The gates in float64, N x H x W.
std::vector<double> gates(
    SpatialGateProblem const& problem, std::vector<double> const& x, std::vector<double> const& weight)
{
    auto const& [batch, channels, height, width] = problem.shape;
    std::int64_t const pixels = height * width;
    std::int64_t const side = problem.kernel;
    std::vector<double> result;
    for (std::int64_t n = 0; n < batch; ++n)
    {
        double const* const image = x.data() + n * channels * pixels;
        std::vector<double> maps(static_cast<std::size_t>(2 * pixels));
        for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
        {
            double sum = 0.0;
            double greatest = image[pixel];
            for (std::int64_t c = 0; c < channels; ++c)
            {
                sum += image[c * pixels + pixel];
                greatest = std::max(greatest, image[c * pixels + pixel]);
            }
            maps[pixel] = sum / static_cast<double>(channels);
            maps[pixels + pixel] = greatest;
        }
        for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
        {
            double sum = 0.0;
            for (std::int64_t tap = 0; tap < 2 * side * side; ++tap)
            {
                std::int64_t const y = pixel / width + tap / side % side - side / 2;
                std::int64_t const at = pixel % width + tap % side - side / 2;
                if (y >= 0 && y < height && at >= 0 && at < width)
                {
                    sum += weight[tap] * maps[tap / (side * side) * pixels + y * width + at];
                }
            }
            result.push_back(1.0 / (1.0 + std::exp(-sum)));
        }
    }
    return result;
}

void check_against_float64(Device& device, SpatialGateProblem const& problem, int shift)
{
    auto const& [batch, channels, height, width] = problem.shape;
    std::int64_t const pixels = height * width;
    std::vector<double> const x = spread(elements(problem.shape), 3.0, problem.type, 6);
    std::vector<double> const weight = spread(2 * problem.kernel * problem.kernel, 0.3, problem.type, 7);
    std::vector<double> const gate_of = gates(problem, x, weight);
    std::vector<double> const y = gate(device, problem, x, weight, shift);
    bool right = true;
    for (std::int64_t i = 0; i < elements(problem.shape) && right; ++i)
    {
        double const exact = x[i] * gate_of[i / (channels * pixels) * pixels + i % pixels];
        double const arithmetic = 5e-6 * std::abs(x[i]);
        double const rounding
            = problem.type == Type::kHalf ? std::max(std::ldexp(std::abs(exact), -11), std::ldexp(1.0, -25)) : 0.0;
        right = std::abs(y[i] - exact) <= arithmetic + rounding;
    }
    CHECK_IN(right,
        text(problem.shape) + " " + text(problem.type) + " " + text(problem.layout) + " kernel "
            + std::to_string(problem.kernel) + ", shifted by " + std::to_string(shift));
}

void check_shapes(Device& device)
{
    for (Shape const& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 7}, Shape{3, 5, 1, 1}, Shape{1, 16, 1, 70},
             Shape{1, 7, 67, 1}, Shape{2, 16, 32, 40}, Shape{1, 256, 16, 16}, Shape{2, 13, 37, 131},
             Shape{1, 3, 70, 522}})
    {
        for (Type const type : {Type::kFloat, Type::kHalf})
        {
            for (int const kernel : {7, 1, 3, 15})
            {
                for (int const shift : {0, 1, 2})
                {
                    check_against_float64(device, {shape, type, Layout::kLinear, kernel}, shift);
                }
            }
        }
    }
}

void check_hwc8(Device& device)
{
    for (Shape const& shape : {Shape{1, 8, 1, 1}, Shape{2, 24, 5, 7}, Shape{1, 256, 16, 16}, Shape{3, 16, 33, 70},
             Shape{1, 512, 9, 5}, Shape{2, 40, 64, 65}})
    {
        for (int const kernel : {7, 3})
        {
            check_against_float64(device, {shape, Type::kHalf, Layout::kHwc8, kernel}, 0);
        }
    }
}

void check_no_weights_halve(Device& device)
{
    SpatialGateProblem const problem{{2, 3, 9, 11}, Type::kFloat, Layout::kLinear, 7};
    std::vector<double> const x = spread(elements(problem.shape), 3.0, Type::kFloat, 8);
    std::vector<double> const y = gate(device, problem, x, std::vector<double>(98, 0.0));
    CHECK(std::equal(x.begin(), x.end(), y.begin(), [](double a, double b) { return b == a / 2.0; }));
}

} // namespace

void check_spatial_gate(Device& device)
{
    check_shapes(device);
    if (device.has(Layout::kHwc8))
    {
        check_hwc8(device);
    }
    check_no_weights_halve(device);
}

} // namespace irforge::test
