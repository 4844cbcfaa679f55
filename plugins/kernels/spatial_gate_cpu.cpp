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

template <typename T>
IRFORGE_CLONES void pool(std::int64_t channels, std::int64_t plane, std::int64_t width, T const* __restrict__ x,
    float* __restrict__ mean, float* __restrict__ greatest)
{
    std::fill_n(mean, width, 0.0F);
    std::fill_n(greatest, width, -std::numeric_limits<float>::infinity());
    for (std::int64_t channel = 0; channel < channels; ++channel)
    {
        T const* const row = x + channel * plane;
        for (std::int64_t i = 0; i < width; ++i)
        {
            float const value = to_float(row[i]);
            mean[i] += value;
            greatest[i] = value > greatest[i] ? value : greatest[i];
        }
    }
    float const count = static_cast<float>(channels);
    for (std::int64_t i = 0; i < width; ++i)
    {
        mean[i] /= count;
    }
}

template <typename T>
IRFORGE_CLONES void multiply(std::int64_t channels, std::int64_t plane, std::int64_t width, T const* __restrict__ x,
    float const* __restrict__ gate, T* __restrict__ y)
{
    for (std::int64_t channel = 0; channel < channels; ++channel)
    {
        T const* const from = x + channel * plane;
        T* const to = y + channel * plane;
        for (std::int64_t i = 0; i < width; ++i)
        {
            store(to_float(from[i]) * gate[i], to[i]);
        }
    }
}

IRFORGE_CLONES void add_convolved_row(std::int64_t width, int side, float const* __restrict__ weight,
    float const* __restrict__ padded, float* __restrict__ sum)
{
    for (int dx = 0; dx < side; ++dx)
    {
        float const w = weight[dx];
        for (std::int64_t i = 0; i < width; ++i)
        {
            sum[i] += w * padded[i + dx];
        }
    }
}

IRFORGE_CLONES void take_sigmoid(std::int64_t width, float* values)
{
    for (std::int64_t i = 0; i < width; ++i)
    {
        values[i] = sigmoid(values[i]);
    }
}

// The pooled rows that the convolution of one row reads: a ring of k rows, each with its zero margins. What a share
// needs stays in the cache, and each row of X is read again soon after it was pooled.
class PooledRows
{
public:
    PooledRows(int side, std::int64_t width)
        : side_(side)
        , pitch_(width + side - 1)
        , rows_(static_cast<std::size_t>(2 * side * pitch_), 0.0F)
    {
    }

    // Map 0 holds means, map 1 maxima. `y` is a row of the image.
    float* padded(int map, std::int64_t y)
    {
        return rows_.data() + (map * side_ + y % side_) * pitch_;
    }

    float* row(int map, std::int64_t y)
    {
        return padded(map, y) + side_ / 2;
    }

private:
    int side_;
    std::int64_t pitch_;
    std::vector<float> rows_;
};

template <typename T>
void gate_rows(SpatialGateProblem const& problem, std::int64_t first, std::int64_t last, T const* x, T const* weights,
    T* y)
{
    std::int64_t const channels = problem.shape.channels;
    std::int64_t const height = problem.shape.height;
    std::int64_t const width = problem.shape.width;
    int const side = problem.kernel;
    int const margin = side / 2;
    std::int64_t const plane = height * width;

    std::vector<float> weight(static_cast<std::size_t>(2 * side * side));
    std::transform(weights, weights + weight.size(), weight.begin(), [](T value) { return to_float(value); });
    std::vector<float> gate(static_cast<std::size_t>(width));
    PooledRows pooled(side, width);

    for (std::int64_t image = first / height; image * height < last; ++image)
    {
        T const* const from = x + image * channels * plane;
        T* const to = y + image * channels * plane;
        std::int64_t const begin = std::max<std::int64_t>(0, first - image * height);
        std::int64_t const end = std::min(height, last - image * height);
        std::int64_t next = std::max<std::int64_t>(0, begin - margin); // the next row to pool
        for (std::int64_t row = begin; row < end; ++row)
        {
            for (; next <= std::min(row + margin, height - 1); ++next)
            {
                pool(channels, plane, width, from + next * width, pooled.row(0, next), pooled.row(1, next));
            }
            std::fill(gate.begin(), gate.end(), 0.0F);
            for (int map = 0; map < 2; ++map)
            {
                for (int dy = 0; dy < side; ++dy)
                {
                    std::int64_t const source = row + dy - margin;
                    if (source >= 0 && source < height)
                    {
                        add_convolved_row(width, side, weight.data() + (map * side + dy) * side,
                            pooled.padded(map, source), gate.data());
                    }
                }
            }
            take_sigmoid(width, gate.data());
            multiply(channels, plane, width, from + row * width, gate.data(), to + row * width);
        }
    }
}

} // namespace

void spatial_gate_cpu(SpatialGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x,
    void const* weight, void* y)
{
    if (problem.type == Type::kFloat)
    {
        gate_rows(problem, first, last, static_cast<float const*>(x), static_cast<float const*>(weight),
            static_cast<float*>(y));
    }
    else
    {
        gate_rows(problem, first, last, static_cast<Half const*>(x), static_cast<Half const*>(weight),
            static_cast<Half*>(y));
    }
}

void spatial_gate_cpu(SpatialGateProblem const& problem, void const* x, void const* weight, void* y)
{
    spatial_gate_cpu(problem, 0, problem.shape.batch * problem.shape.height, x, weight, y);
}

} // namespace irforge
