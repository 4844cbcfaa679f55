#include "arithmetic.h"
#include "clones.h"
#include "cpu.h"
#include "half.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace irforge
{
namespace
{

constexpr int kLanes = 32; // sums side by side, which the compiler turns into vectors

// A sum in FP32 keeps its digits when blocks of a map are summed apart.
constexpr std::int64_t kBlock = 128 * kLanes;

template <typename T>
IRFORGE_CLONES void pool_block(std::int64_t count, T const* __restrict__ x, float* __restrict__ sum,
    float* __restrict__ greatest)
{
    float sums[kLanes] = {};
    float greatests[kLanes];
    std::fill_n(greatests, kLanes, *greatest);
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
    {
        for (int lane = 0; lane < kLanes; ++lane)
        {
            float const value = to_float(x[i + lane]);
            sums[lane] += value;
            greatests[lane] = value > greatests[lane] ? value : greatests[lane];
        }
    }
    for (; i < count; ++i)
    {
        float const value = to_float(x[i]);
        sums[0] += value;
        greatests[0] = value > greatests[0] ? value : greatests[0];
    }
    float total = 0.0F;
    for (int lane = 0; lane < kLanes; ++lane)
    {
        total += sums[lane];
        *greatest = greatests[lane] > *greatest ? greatests[lane] : *greatest;
    }
    *sum += total;
}

template <typename T>
void pool(ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, T const* x, float* pooled)
{
    std::int64_t const pixels = problem.shape.height * problem.shape.width;
    for (std::int64_t map = first; map < last; ++map)
    {
        float sum = 0.0F;
        float greatest = -std::numeric_limits<float>::infinity();
        for (std::int64_t pixel = 0; pixel < pixels; pixel += kBlock)
        {
            pool_block(std::min(kBlock, pixels - pixel), x + map * pixels + pixel, &sum, &greatest);
        }
        pooled[2 * map] = sum / static_cast<float>(pixels);
        pooled[2 * map + 1] = greatest;
    }
}

template <typename T>
void make_gates(ChannelGateProblem const& problem, T const* w1, T const* w2, float const* pooled, float* gates)
{
    std::int64_t const channels = problem.shape.channels;
    std::vector<float> hidden(static_cast<std::size_t>(problem.hidden));
    for (std::int64_t image = 0; image < problem.shape.batch; ++image)
    {
        float const* const values = pooled + image * 2 * channels;
        for (std::int64_t row = 0; row < problem.hidden; ++row)
        {
            float of_mean = 0.0F;
            float of_greatest = 0.0F;
            for (std::int64_t channel = 0; channel < channels; ++channel)
            {
                float const weight = to_float(w1[row * channels + channel]);
                of_mean += weight * values[2 * channel];
                of_greatest += weight * values[2 * channel + 1];
            }
            // The second layer is linear: what it makes of both is what it makes of their sum.
            hidden[row] = relu(of_mean) + relu(of_greatest);
        }
        for (std::int64_t channel = 0; channel < channels; ++channel)
        {
            float logit = 0.0F;
            for (std::int64_t row = 0; row < problem.hidden; ++row)
            {
                logit += to_float(w2[channel * problem.hidden + row]) * hidden[row];
            }
            gates[image * channels + channel] = sigmoid(logit);
        }
    }
}

template <typename T>
IRFORGE_CLONES void multiply_map(std::int64_t count, T const* __restrict__ x, float gate, T* __restrict__ y)
{
    for (std::int64_t i = 0; i < count; ++i)
    {
        store(to_float(x[i]) * gate, y[i]);
    }
}

template <typename T>
void multiply(ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, T const* x,
    float const* gates, T* y)
{
    std::int64_t const pixels = problem.shape.height * problem.shape.width;
    for (std::int64_t map = first; map < last; ++map)
    {
        multiply_map(pixels, x + map * pixels, gates[map], y + map * pixels);
    }
}

} // namespace

void channel_gate_pool_cpu(
    ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x, float* pooled)
{
    problem.type == Type::kFloat ? pool(problem, first, last, static_cast<float const*>(x), pooled)
                                 : pool(problem, first, last, static_cast<Half const*>(x), pooled);
}

void channel_gate_gates_cpu(
    ChannelGateProblem const& problem, void const* w1, void const* w2, float const* pooled, float* gates)
{
    problem.type == Type::kFloat
        ? make_gates(problem, static_cast<float const*>(w1), static_cast<float const*>(w2), pooled, gates)
        : make_gates(problem, static_cast<Half const*>(w1), static_cast<Half const*>(w2), pooled, gates);
}

void channel_gate_multiply_cpu(ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x,
    float const* gates, void* y)
{
    problem.type == Type::kFloat
        ? multiply(problem, first, last, static_cast<float const*>(x), gates, static_cast<float*>(y))
        : multiply(problem, first, last, static_cast<Half const*>(x), gates, static_cast<Half*>(y));
}

void channel_gate_cpu(
    ChannelGateProblem const& problem, void const* x, void const* w1, void const* w2, void* y)
{
    std::int64_t const maps = problem.shape.batch * problem.shape.channels;
    std::vector<float> pooled(static_cast<std::size_t>(2 * maps));
    std::vector<float> gates(static_cast<std::size_t>(maps));
    channel_gate_pool_cpu(problem, 0, maps, x, pooled.data());
    channel_gate_gates_cpu(problem, w1, w2, pooled.data(), gates.data());
    channel_gate_multiply_cpu(problem, 0, maps, x, gates.data(), y);
}

} // namespace irforge
