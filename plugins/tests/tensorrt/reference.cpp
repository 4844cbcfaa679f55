#include "reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace irforge::test
{

namespace
{

// A few roundings to FP32, relative.
constexpr double kRoundings = 1e-6;
// Where FP32 has no normal numbers left.
constexpr double kUnderflow = 1e-35;

double sigmoid(double value)
{
    return 1.0 / (1.0 + std::exp(-value));
}

} // namespace

Reference mutual_gate_reference(nvinfer1::Dims const& dims, std::vector<double> const& g, std::vector<double> const& l,
    double scale_g, double scale_l)
{
    auto const image = static_cast<std::size_t>(dims.d[1] * dims.d[2] * dims.d[3]);
    Reference reference;
    auto const half = [&](std::size_t first, std::vector<double> const& gated, std::vector<double> const& gate,
                          double scale)
    {
        for (std::size_t i = first; i < first + image; ++i)
        {
            double const value = gated[i] * sigmoid(gate[i]) / scale;
            reference.value.push_back(value);
            reference.error.push_back(kRoundings * std::abs(value) + kUnderflow);
        }
    };
    for (std::size_t first = 0; first < g.size(); first += image)
    {
        half(first, g, l, scale_g);
        half(first, l, g, scale_l);
    }
    return reference;
}

Reference spatial_gate_reference(
    nvinfer1::Dims const& dims, std::vector<double> const& x, std::int64_t side, std::vector<double> const& weight)
{
    std::int64_t const channels = dims.d[1];
    std::int64_t const height = dims.d[2];
    std::int64_t const width = dims.d[3];
    auto const at = [&](std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w)
    { return static_cast<std::size_t>(((n * channels + c) * height + h) * width + w); };

    Reference reference{std::vector<double>(x.size()), std::vector<double>(x.size())};
    for (std::int64_t n = 0; n < dims.d[0]; ++n)
    {
        std::vector<double> mean;
        std::vector<double> maximum;
        std::vector<double> terms; // what sums in FP32 lose digits of
        for (std::int64_t pixel = 0; pixel < height * width; ++pixel)
        {
            double sum = 0.0;
            double most = -std::numeric_limits<double>::infinity();
            double absolute = 0.0;
            for (std::int64_t c = 0; c < channels; ++c)
            {
                double const value = x[at(n, c, pixel / width, pixel % width)];
                sum += value;
                most = std::max(most, value);
                absolute += std::abs(value);
            }
            mean.push_back(sum / static_cast<double>(channels));
            maximum.push_back(most);
            terms.push_back(absolute / static_cast<double>(channels) + std::abs(most));
        }
        for (std::int64_t h = 0; h < height; ++h)
        {
            for (std::int64_t w = 0; w < width; ++w)
            {
                double sum = 0.0;
                double loss = 0.0;
                for (std::int64_t tap = 0; tap < side * side; ++tap)
                {
                    std::int64_t const row = h + tap / side - side / 2;
                    std::int64_t const column = w + tap % side - side / 2;
                    if (row >= 0 && row < height && column >= 0 && column < width)
                    {
                        auto const pixel = static_cast<std::size_t>(row * width + column);
                        double const of_mean = weight[static_cast<std::size_t>(tap)];
                        double const of_maximum = weight[static_cast<std::size_t>(side * side + tap)];
                        sum += of_mean * mean[pixel] + of_maximum * maximum[pixel];
                        loss += kRoundings * std::max(std::abs(of_mean), std::abs(of_maximum)) * terms[pixel];
                    }
                }
                for (std::int64_t c = 0; c < channels; ++c)
                {
                    std::size_t const i = at(n, c, h, w);
                    double const gate = sigmoid(sum);
                    reference.value[i] = x[i] * gate;
                    // The sigmoid's slope is at most the sigmoid itself.
                    reference.error[i] = std::abs(x[i]) * gate * (kRoundings + loss) + kUnderflow;
                }
            }
        }
    }
    return reference;
}

Reference channel_gate_reference(nvinfer1::Dims const& dims, std::vector<double> const& x, std::int64_t hidden,
    std::vector<double> const& w1, std::vector<double> const& w2)
{
    std::int64_t const channels = dims.d[1];
    std::int64_t const pixels = dims.d[2] * dims.d[3];
    auto const at = [](std::int64_t row, std::int64_t length, std::int64_t column)
    { return static_cast<std::size_t>(row * length + column); };

    Reference reference{std::vector<double>(x.size()), std::vector<double>(x.size())};
    for (std::int64_t n = 0; n < dims.d[0]; ++n)
    {
        struct Value
        {
            double exact;
            double terms; // what sums in FP32 lose digits of
        };
        std::vector<std::array<Value, 2>> pooled; // mean and maximum
        for (std::int64_t c = 0; c < channels; ++c)
        {
            double sum = 0.0;
            double absolute = 0.0;
            double most = -std::numeric_limits<double>::infinity();
            for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
            {
                double const value = x[at(n * channels + c, pixels, pixel)];
                sum += value;
                absolute += std::abs(value);
                most = std::max(most, value);
            }
            auto const count = static_cast<double>(pixels);
            pooled.push_back({Value{sum / count, absolute / count}, Value{most, std::abs(most)}});
        }
        std::vector<Value> logits(static_cast<std::size_t>(channels), Value{0.0, 0.0});
        for (std::size_t which = 0; which < 2; ++which)
        {
            for (std::int64_t row = 0; row < hidden; ++row)
            {
                Value sum{0.0, 0.0};
                for (std::int64_t c = 0; c < channels; ++c)
                {
                    Value const& value = pooled[static_cast<std::size_t>(c)][which];
                    double const weight = w1[at(row, channels, c)];
                    sum.exact += weight * value.exact;
                    sum.terms += std::abs(weight) * value.terms;
                }
                for (std::int64_t c = 0; c < channels; ++c)
                {
                    double const weight = w2[at(c, hidden, row)];
                    logits[static_cast<std::size_t>(c)].exact += weight * std::max(sum.exact, 0.0);
                    logits[static_cast<std::size_t>(c)].terms += std::abs(weight) * sum.terms;
                }
            }
        }
        for (std::int64_t c = 0; c < channels; ++c)
        {
            Value const& logit = logits[static_cast<std::size_t>(c)];
            double const gate = sigmoid(logit.exact);
            for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
            {
                std::size_t const i = at(n * channels + c, pixels, pixel);
                reference.value[i] = x[i] * gate;
                // The sigmoid's slope is at most the sigmoid itself.
                reference.error[i] = std::abs(x[i]) * gate * kRoundings * (1.0 + logit.terms) + kUnderflow;
            }
        }
    }
    return reference;
}

} // namespace irforge::test
