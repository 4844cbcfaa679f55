#include "check.h"
#include "gates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace irforge::test
{
namespace
{

constexpr Type kTypes[] = {Type::kFloat, Type::kHalf};
constexpr Type kOutputs[] = {Type::kFloat, Type::kHalf, Type::kInt8};

double sigmoid(double v)
{
    return 1.0 / (1.0 + std::exp(-v));
}

Shape doubled(Shape shape)
{
    shape.channels *= 2;
    return shape;
}

MutualGateProblem linear(Shape const& shape, Type input, Type output)
{
    MutualGateProblem problem;
    problem.shape = shape;
    problem.input = input;
    problem.output = output;
    problem.scale_g = 0.037F;
    problem.scale_l = 0.021F;
    return problem;
}

std::string text(MutualGateProblem const& problem, int shift)
{
    return test::text(problem.shape) + " from " + test::text(problem.input) + " " + test::text(problem.input_layout)
        + " to " + test::text(problem.output) + " " + test::text(problem.output_layout) + ", shifted by "
        + std::to_string(shift);
}

std::vector<double> gate(Device& device, MutualGateProblem const& problem, std::vector<double> const& g,
    std::vector<double> const& l, int shift = 0)
{
    Bytes const y = device.mutual_gate(problem, encode(g, problem.input, problem.input_layout, problem.shape),
        encode(l, problem.input, problem.input_layout, problem.shape), shift);
    return decode(y, problem.output, problem.output_layout, doubled(problem.shape));
}

// Whether `value` is `exact` computed in FP32 with an error of a few units in the last place, rounded once to `type`.
bool is_rounded(double value, double exact, Type type)
{
    double const arithmetic = 5e-7 * std::abs(exact);
    if (type == Type::kFloat)
    {
        return std::abs(value - exact) <= arithmetic + 1e-38;
    }
    double const half_ulp = std::max(std::abs(exact) * std::ldexp(1.0, -11), std::ldexp(1.0, -25));
    return std::abs(value - exact) <= half_ulp + arithmetic;
}

bool is_quantised(double value, double exact, float scale)
{
    double const quotient = std::clamp(exact / static_cast<double>(scale), -128.0, 127.0);
    return std::abs(value - quotient) <= 0.5 + 1e-6 * std::abs(quotient);
}

void check_against_float64(Device& device, MutualGateProblem const& problem, int shift)
{
    std::int64_t const count = elements(problem.shape);
    std::vector<double> const g = spread(count, 9.0, problem.input, 1);
    std::vector<double> const l = spread(count, 9.0, problem.input, 2);
    std::vector<double> const y = gate(device, problem, g, l, shift);
    std::int64_t const image = count / problem.shape.batch;
    bool right = true;
    for (std::int64_t i = 0; i < count && right; ++i)
    {
        double const exact_g = g[i] * sigmoid(l[i]);
        double const exact_l = l[i] * sigmoid(g[i]);
        std::int64_t const at = i + i / image * image;
        right = problem.output == Type::kInt8
            ? is_quantised(y[at], exact_g, problem.scale_g) && is_quantised(y[at + image], exact_l, problem.scale_l)
            : is_rounded(y[at], exact_g, problem.output) && is_rounded(y[at + image], exact_l, problem.output);
    }
    CHECK_IN(right, text(problem, shift));
}

void check_golden(Device& device)
{
    std::vector<double> const g{-2, -1, 0, 1, 2};
    std::vector<double> const l{3, 0, -3, 1, -1};
    std::vector<double> const golden{
        -1.90514825, -0.5, 0, 0.73105858, 0.53788284, 0.35760877, 0, -1.5, 0.73105858, -0.88079708};
    for (Type const type : kTypes)
    {
        std::vector<double> const y = gate(device, linear({1, 1, 1, 5}, type, type), g, l);
        for (std::size_t i = 0; i < golden.size(); ++i)
        {
            double const tolerance = type == Type::kFloat ? 1.5e-7 : 1e-3;
            CHECK_IN(std::abs(y[i] - golden[i]) <= tolerance, test::text(type) + " golden " + std::to_string(i));
        }
    }
}

void check_shapes(Device& device)
{
    for (Shape const& shape : {Shape{1, 1, 1, 1}, Shape{1, 3, 5, 7}, Shape{5, 2, 3, 1}, Shape{2, 17, 13, 11},
             Shape{3, 2, 3, 2}, Shape{3, 6, 2, 2}, Shape{2, 12, 6, 10}, Shape{1, 64, 50, 76}})
    {
        for (Type const input : kTypes)
        {
            for (Type const output : kOutputs)
            {
                for (int const shift : {0, 1, 2, 4})
                {
                    check_against_float64(device, linear(shape, input, output), shift);
                }
            }
        }
    }
}

void check_layouts(Device& device)
{
    for (Shape const& shape : {Shape{1, 32, 1, 1}, Shape{2, 96, 5, 7}, Shape{3, 64, 16, 17}, Shape{1, 1024, 10, 13},
             Shape{2, 8, 5, 7}, Shape{1, 24, 9, 9}})
    {
        MutualGateProblem problem = linear(shape, Type::kHalf, Type::kHalf);
        problem.input_layout = Layout::kHwc8;
        problem.output_layout = Layout::kHwc8;
        if (device.has(Layout::kHwc8))
        {
            check_against_float64(device, problem, 0);
        }
        problem.output = Type::kInt8;
        problem.output_layout = Layout::kChw32;
        if (device.has(Layout::kChw32) && shape.channels % 32 == 0)
        {
            check_against_float64(device, problem, 0);
        }
    }
}

void check_saturation(Device& device)
{
    for (Type const type : kTypes)
    {
        double const most = type == Type::kFloat ? std::numeric_limits<float>::max() : 65504.0;
        std::vector<double> const extremes{-most, -1000.0, -104.0, -88.5, -87.5, 0.0, 87.5, 88.5, 104.0, 1000.0, most};
        std::vector<double> g;
        std::vector<double> l;
        for (double const a : extremes)
        {
            for (double const b : extremes)
            {
                g.push_back(a);
                l.push_back(b);
            }
        }
        auto const count = static_cast<std::int64_t>(g.size());
        std::vector<double> const y = gate(device, linear({1, 1, 1, count}, type, type), g, l);
        for (std::int64_t i = 0; i < count; ++i)
        {
            std::string const where = test::text(type) + " G " + std::to_string(g[i]) + " L " + std::to_string(l[i]);
            CHECK_IN(std::abs(y[i]) <= std::abs(g[i]) && std::abs(y[count + i]) <= std::abs(l[i]), where);
            CHECK_IN(l[i] < 104.0 || y[i] == g[i], where);
            CHECK_IN(l[i] > -104.0 || y[i] == 0.0, where);
            CHECK_IN(g[i] < 104.0 || y[count + i] == l[i], where);
            CHECK_IN(g[i] > -104.0 || y[count + i] == 0.0, where);
        }

        double const nan = std::numeric_limits<double>::quiet_NaN();
        std::vector<double> const mixed = gate(device, linear({1, 1, 1, 2}, type, type), {nan, 1.0}, {1.0, nan});
        CHECK(std::all_of(mixed.begin(), mixed.end(), [](double v) { return std::isnan(v); }));
    }
}

void check_ties(Device& device)
{
    for (Type const input : kTypes)
    {
        // With L = 100 the sigmoid is exactly 1, so the first half is G / 0.25 = k + 0.5.
        std::vector<double> g;
        for (int k = -140; k <= 140; ++k)
        {
            g.push_back((k + 0.5) * 0.25);
        }
        auto const count = static_cast<std::int64_t>(g.size());
        MutualGateProblem problem = linear({1, 1, 1, count}, input, Type::kInt8);
        problem.scale_g = 0.25F;
        problem.scale_l = 1.0F;
        std::vector<double> const y = gate(device, problem, g, std::vector<double>(g.size(), 100.0));
        for (std::int64_t i = 0; i < count; ++i)
        {
            double const even = std::clamp(std::nearbyint(g[i] / 0.25), -128.0, 127.0);
            CHECK_IN(y[i] == even, test::text(input) + " tie " + std::to_string(g[i] / 0.25));
        }
    }
}

// QuantizeLinear divides in FP32: a product with 1 / scale would differ where the quotient is nearly a tie.
void check_division(Device& device)
{
    for (float const scale : {0.1F, 0.037F, 3.3e-5F, 1.7F, 1e-36F, 1e36F})
    {
        std::int64_t const count = 40000;
        std::vector<double> g = spread(count, 140.0 * static_cast<double>(scale), Type::kFloat, 5);
        for (std::int64_t i = 0; i < count / 2; ++i)
        {
            // Half of them as near to a tie as FP32 can be.
            float const tie = static_cast<float>((static_cast<double>(i % 256) - 127.5) * static_cast<double>(scale));
            g[i] = i % 3 == 0 ? tie : std::nextafter(tie, i % 3 == 1 ? 1e38F : -1e38F);
        }
        MutualGateProblem problem = linear({1, 1, 1, count}, Type::kFloat, Type::kInt8);
        problem.scale_g = scale;
        std::vector<double> const y = gate(device, problem, g, std::vector<double>(g.size(), 100.0));
        bool same = true;
        for (std::int64_t i = 0; i < count; ++i)
        {
            same = same && y[i] == std::clamp(std::nearbyint(static_cast<float>(g[i]) / scale), -128.0F, 127.0F);
        }
        CHECK_IN(same, "scale " + std::to_string(scale));
    }
}

void check_batch(Device& device)
{
    MutualGateProblem batch = linear({3, 5, 4, 6}, Type::kFloat, Type::kFloat);
    std::vector<double> const g = spread(elements(batch.shape), 5.0, Type::kFloat, 3);
    std::vector<double> const l = spread(elements(batch.shape), 5.0, Type::kFloat, 4);
    std::vector<double> const y = gate(device, batch, g, l);
    MutualGateProblem single = batch;
    single.shape.batch = 1;
    std::ptrdiff_t const image = elements(single.shape);
    for (std::ptrdiff_t n = 0; n < 3; ++n)
    {
        std::vector<double> const alone = gate(device, single, {g.begin() + n * image, g.begin() + (n + 1) * image},
            {l.begin() + n * image, l.begin() + (n + 1) * image});
        CHECK(std::equal(alone.begin(), alone.end(), y.begin() + 2 * n * image));
    }
}

} // namespace

void check_mutual_gate(Device& device)
{
    check_golden(device);
    check_shapes(device);
    check_layouts(device);
    check_saturation(device);
    check_ties(device);
    check_division(device);
    check_batch(device);
}

} // namespace irforge::test
