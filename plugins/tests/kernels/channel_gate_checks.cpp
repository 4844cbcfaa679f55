#include "check.h"
#include "gates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace irforge::test
{
namespace
{

struct Inputs
{
    std::vector<double> x;
    std::vector<double> w1;
    std::vector<double> w2;
};

Inputs inputs_of(ChannelGateProblem const& problem)
{
    std::int64_t const weights = problem.hidden * problem.shape.channels;
    return {spread(elements(problem.shape), 3.0, problem.type, 9),
        spread(weights, 1.0 / std::sqrt(static_cast<double>(problem.shape.channels)), problem.type, 10),
        spread(weights, 1.0 / std::sqrt(static_cast<double>(problem.hidden)), problem.type, 11)};
}

std::vector<double> gate(Device& device, ChannelGateProblem const& problem, Inputs const& inputs, int shift = 0)
{
    std::int64_t const channels = problem.shape.channels;
    Bytes const y = device.channel_gate(problem, encode(inputs.x, problem.type, problem.layout, problem.shape),
        encode(inputs.w1, problem.type, Layout::kLinear, {problem.hidden, channels, 1, 1}),
        encode(inputs.w2, problem.type, Layout::kLinear, {channels, problem.hidden, 1, 1}), shift);
    return decode(y, problem.type, problem.layout, problem.shape);
}

// W2 relu(W1 v) in float64.
std::vector<double> perceptron(Inputs const& inputs, std::int64_t hidden, std::vector<double> const& v)
{
    auto const channels = static_cast<std::int64_t>(v.size());
    std::vector<double> result(v.size());
    for (std::int64_t row = 0; row < hidden; ++row)
    {
        double sum = 0.0;
        for (std::int64_t c = 0; c < channels; ++c)
        {
            sum += inputs.w1[row * channels + c] * v[c];
        }
        for (std::int64_t c = 0; c < channels; ++c)
        {
            result[c] += inputs.w2[c * hidden + row] * std::max(sum, 0.0);
        }
    }
    return result;
}

// The gates in float64, N x C.
std::vector<double> gates(ChannelGateProblem const& problem, Inputs const& inputs)
{
    std::int64_t const pixels = problem.shape.height * problem.shape.width;
    std::vector<double> result;
    for (std::int64_t n = 0; n < problem.shape.batch; ++n)
    {
        std::vector<double> mean;
        std::vector<double> greatest;
        for (std::int64_t c = 0; c < problem.shape.channels; ++c)
        {
            auto const first = inputs.x.begin() + (n * problem.shape.channels + c) * pixels;
            double sum = 0.0;
            std::for_each(first, first + pixels, [&](double value) { sum += value; });
            mean.push_back(sum / static_cast<double>(pixels));
            greatest.push_back(*std::max_element(first, first + pixels));
        }
        std::vector<double> const of_mean = perceptron(inputs, problem.hidden, mean);
        std::vector<double> const of_greatest = perceptron(inputs, problem.hidden, greatest);
        for (std::size_t c = 0; c < mean.size(); ++c)
        {
            result.push_back(1.0 / (1.0 + std::exp(-of_mean[c] - of_greatest[c])));
        }
    }
    return result;
}

std::string text(ChannelGateProblem const& problem, int shift)
{
    return test::text(problem.shape) + " " + test::text(problem.type) + " " + test::text(problem.layout) + " hidden "
        + std::to_string(problem.hidden) + ", shifted by " + std::to_string(shift);
}

void check_against_float64(Device& device, ChannelGateProblem const& problem, int shift)
{
    Inputs const inputs = inputs_of(problem);
    std::vector<double> const gate_of = gates(problem, inputs);
    std::vector<double> const y = gate(device, problem, inputs, shift);
    std::int64_t const pixels = problem.shape.height * problem.shape.width;
    bool right = true;
    for (std::int64_t i = 0; i < elements(problem.shape) && right; ++i)
    {
        double const exact = inputs.x[i] * gate_of[i / pixels];
        double const arithmetic = 5e-6 * std::abs(inputs.x[i]);
        double const rounding
            = problem.type == Type::kHalf ? std::max(std::ldexp(std::abs(exact), -11), std::ldexp(1.0, -25)) : 0.0;
        right = std::abs(y[i] - exact) <= arithmetic + rounding;
    }
    CHECK_IN(right, text(problem, shift));
}

// Together they have maps of one part and of many, rests of every pack, and fewer and more rows than a block has warps.
void check_shapes(Device& device)
{
    struct Case
    {
        Shape shape;
        std::int64_t hidden;
    };
    for (Case const& test : {Case{{1, 1, 1, 1}, 1}, Case{{2, 3, 5, 7}, 2}, Case{{3, 5, 1, 1}, 5},
             Case{{1, 16, 1, 70}, 1}, Case{{2, 16, 64, 68}, 1}, Case{{1, 256, 16, 16}, 16},
             Case{{2, 13, 37, 131}, 3}, Case{{1, 3, 70, 522}, 1}, Case{{1, 1, 256, 640}, 1},
             Case{{1, 70, 9, 10}, 70}, Case{{1, 2048, 2, 2}, 128}, Case{{9, 100, 3, 4}, 40}})
    {
        for (Type const type : {Type::kFloat, Type::kHalf})
        {
            for (int const shift : {0, 1, 2})
            {
                check_against_float64(device, {test.shape, type, Layout::kLinear, test.hidden}, shift);
            }
        }
    }
}

void check_hwc8(Device& device)
{
    for (Shape const& shape : {Shape{1, 8, 1, 1}, Shape{2, 24, 5, 7}, Shape{1, 256, 16, 16}, Shape{3, 16, 33, 70},
             Shape{1, 16, 256, 256}, Shape{1, 520, 9, 5}, Shape{2, 40, 64, 65}})
    {
        for (std::int64_t const hidden : {shape.channels / 8, shape.channels})
        {
            check_against_float64(device, {shape, Type::kHalf, Layout::kHwc8, hidden}, 0);
        }
    }
}

void check_golden(Device& device)
{
    // Means 1 and -1, maxima 4 and 1; the hidden value is 2 of the means, 6.75 of the maxima; logits 4.375 and -8.75.
    Inputs const inputs{{-2, 0, 2, 4, 1, -3, -2, 0}, {1.75, -0.25}, {0.5, -1}};
    std::vector<double> const golden{
        -1.9751367, 0, 1.9751367, 3.9502734, 0.000158436219, -0.000475308657, -0.000316872438, 0};
    for (Type const type : {Type::kFloat, Type::kHalf})
    {
        std::vector<double> const y = gate(device, {{1, 2, 2, 2}, type, Layout::kLinear, 1}, inputs);
        for (std::size_t i = 0; i < golden.size(); ++i)
        {
            double const tolerance = type == Type::kFloat ? 1e-6 * std::abs(golden[i]) : 2e-3 * std::abs(golden[i]);
            CHECK_IN(std::abs(y[i] - golden[i]) <= tolerance, test::text(type) + " golden " + std::to_string(i));
        }
    }
}

void check_no_weights_halve(Device& device)
{
    ChannelGateProblem const problem{{2, 3, 9, 11}, Type::kFloat, Layout::kLinear, 2};
    Inputs inputs = inputs_of(problem);
    std::fill(inputs.w1.begin(), inputs.w1.end(), 0.0);
    std::vector<double> const y = gate(device, problem, inputs);
    CHECK(std::equal(y.begin(), y.end(), inputs.x.begin(), [](double a, double b) { return a == b / 2.0; }));
}

// A mean of the greatest halves overflows a sum in FP16, not one in FP32; the gates open and close all the way.
void check_saturation(Device& device)
{
    for (Type const type : {Type::kFloat, Type::kHalf})
    {
        ChannelGateProblem const problem{{1, 2, 3, 50}, type, Layout::kLinear, 1};
        Inputs const inputs{std::vector<double>(300, 65504.0), {1, 0}, {1, -1}};
        std::vector<double> const y = gate(device, problem, inputs);
        CHECK_IN(std::all_of(y.begin(), y.begin() + 150, [](double v) { return v == 65504.0; }), test::text(type));
        CHECK_IN(std::all_of(y.begin() + 150, y.end(), [](double v) { return v == 0.0; }), test::text(type));

        Inputs lost = inputs;
        lost.x[7] = std::numeric_limits<double>::quiet_NaN();
        std::vector<double> const spoilt = gate(device, problem, lost);
        CHECK_IN(std::all_of(spoilt.begin(), spoilt.end(), [](double v) { return std::isnan(v); }), test::text(type));
    }
}

void check_the_same_bits_again(Device& device)
{
    ChannelGateProblem const problem{{2, 16, 64, 68}, Type::kFloat, Layout::kLinear, 2};
    Inputs const inputs = inputs_of(problem);
    CHECK(gate(device, problem, inputs) == gate(device, problem, inputs));
}

} // namespace

void check_channel_gate(Device& device)
{
    check_golden(device);
    check_shapes(device);
    if (device.has(Layout::kHwc8))
    {
        check_hwc8(device);
    }
    check_no_weights_halve(device);
    check_saturation(device);
    check_the_same_bits_again(device);
}

} // namespace irforge::test
