#include "arithmetic.h"
#include "channel_gate_pooling.h"
#include "cuda.h"
#include "device.cuh"

#include <algorithm>

// Three launches, because a gate needs its whole map and every other channel: the first pools parts of the maps, the
// second makes the gates of an image from them, the third multiplies. X is read twice; the first pass leaves it in the
// L2 cache, where the third finds as much of it as fits. Partial results are combined in an order that depends on the
// shape alone, so that the same input gives the same bits.

namespace irforge
{
namespace
{

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;

// Visits every `step`th pack from `first` to before `last`, with kBatch of them on their way at a time.
template <int kBatch, int kCount, typename T, typename Visit>
__device__ __forceinline__ void for_each_pack(
    T const* from, std::uint32_t first, std::uint32_t last, std::uint32_t step, Visit visit)
{
    std::uint32_t index = first;
    for (; index + (kBatch - 1) * step < last; index += kBatch * step)
    {
        Pack<T, kCount> values[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i)
        {
            values[i].load(from, index + i * step);
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i)
        {
            visit(values[i]);
        }
    }
    for (; index < last; index += step)
    {
        Pack<T, kCount> values;
        values.load(from, index);
        visit(values);
    }
}

struct PlaneParts
{
    std::uint32_t channels;
    std::uint32_t plane_packs;
    std::uint32_t part_packs;
    std::uint32_t parts;
    std::uint32_t lanes; // threads that share a part: whole warps
    std::uint32_t image_blocks;
};

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    pool_linear(T const* __restrict__ x, Pooled* __restrict__ partials, PlaneParts of)
{
    __shared__ Pooled of_warps[kWarps];

    std::uint32_t const image = blockIdx.x / of.image_blocks;
    std::uint32_t const block = blockIdx.x - image * of.image_blocks;
    std::uint32_t const lane = threadIdx.x % of.lanes;
    std::uint32_t const unit = block * (kThreads / of.lanes) + threadIdx.x / of.lanes; // a part of a channel
    std::uint32_t const units = of.channels * of.parts;

    Pooled total = nothing_pooled();
    if (unit < units)
    {
        std::uint32_t const channel = unit / of.parts;
        std::uint32_t const first = (unit - channel * of.parts) * of.part_packs;
        std::uint32_t const last = min(first + of.part_packs, of.plane_packs);
        T const* const plane = x + (std::size_t{image} * of.channels + channel) * of.plane_packs * kCount;
        for_each_pack<4, kCount>(plane, first + lane, last, of.lanes,
            [&](Pack<T, kCount> const& values)
            {
#pragma unroll
                for (int i = 0; i < kCount; ++i)
                {
                    total.add(to_float(values.values[i]));
                }
            });
    }
    total = pool_over(total, 1, kWarp);
    std::uint32_t const warp = threadIdx.x / kWarp;
    if (threadIdx.x % kWarp == 0)
    {
        of_warps[warp] = total;
    }
    __syncthreads();
    if (lane == 0 && unit < units)
    {
        for (std::uint32_t other = 1; other < of.lanes / kWarp; ++other)
        {
            total.add(of_warps[warp + other]);
        }
        partials[std::size_t{image} * units + unit] = total;
    }
}

struct PixelParts
{
    std::uint32_t pixels;
    std::uint32_t pixel_packs;
    std::uint32_t part;
    std::uint32_t parts;
    std::uint32_t lanes;  // threads side by side, each on one pack of the pixel: a power of two up to 32
    std::uint32_t groups; // of so many packs
};

__global__ void __launch_bounds__(kThreads)
    pool_hwc8(__half const* __restrict__ x, Pooled* __restrict__ partials, PixelParts of)
{
    constexpr int kCount = 8;
    __shared__ Pooled of_warps[kWarps][kWarp * kCount];

    std::uint32_t const group_of_all = blockIdx.x / of.parts;
    std::uint32_t const part = blockIdx.x - group_of_all * of.parts;
    std::uint32_t const image = group_of_all / of.groups;
    std::uint32_t const group = group_of_all - image * of.groups;
    std::uint32_t const lane = threadIdx.x % of.lanes;
    std::uint32_t const pack = group * of.lanes + lane;

    Pooled mine[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        mine[i] = nothing_pooled();
    }
    if (pack < of.pixel_packs)
    {
        __half const* const from = x + std::size_t{image} * of.pixels * of.pixel_packs * kCount;
        std::uint32_t const first = part * of.part + threadIdx.x / of.lanes;
        std::uint32_t const last = min((part + 1) * of.part, of.pixels);
        for_each_pack<2, kCount>(from, first * of.pixel_packs + pack, last * of.pixel_packs,
            kThreads / of.lanes * of.pixel_packs,
            [&](Pack<__half, kCount> const& values)
            {
#pragma unroll
                for (int i = 0; i < kCount; ++i)
                {
                    mine[i].add(to_float(values.values[i]));
                }
            });
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        mine[i] = pool_over(mine[i], of.lanes, kWarp);
        if (threadIdx.x % kWarp < of.lanes)
        {
            of_warps[threadIdx.x / kWarp][lane * kCount + i] = mine[i];
        }
    }
    __syncthreads();

    std::uint32_t const channels = of.pixel_packs * kCount;
    std::uint32_t const channel = group * of.lanes * kCount + threadIdx.x;
    if (threadIdx.x < of.lanes * kCount && channel < channels)
    {
        Pooled total = of_warps[0][threadIdx.x];
#pragma unroll
        for (int other = 1; other < kWarps; ++other)
        {
            total.add(of_warps[other][threadIdx.x]);
        }
        partials[(std::size_t{image} * channels + channel) * of.parts + part] = total;
    }
}

// The workspace. What a block writes here and reads again must not be declared read-only.
struct Scratch
{
    Pooled* partials; // N x C x parts
    Pooled* pooled;   // N x C: mean and maximum
    float* gates;     // N x C
    float* hidden;    // N x h

    Scratch(ChannelGateProblem const& problem, Pooling const& pooling, void* workspace)
        : partials(static_cast<Pooled*>(workspace))
        , pooled(partials + pooling.slots)
        , gates(reinterpret_cast<float*>(pooled + problem.shape.batch * problem.shape.channels))
        , hidden(gates + problem.shape.batch * problem.shape.channels)
    {
    }
};

struct Perceptron
{
    std::uint32_t channels;
    std::uint32_t hidden;
    std::uint32_t parts;
    std::uint32_t part_lanes; // threads, a power of two up to 32, that share one of the sums over parts
    std::uint32_t hidden_lanes;
    float pixels;
};

// One block makes the gates of an image: they are few, and each needs all that was pooled.
constexpr int kGateThreads = 1024;

// The threads that share a row with this one, and the rows that fall to them. Every thread of a warp goes through the
// same number of rows, as the shuffles ask.
struct Team
{
    std::uint32_t lane;
    std::uint32_t first;
    std::uint32_t step;

    __device__ __forceinline__ explicit Team(std::uint32_t lanes)
        : lane(threadIdx.x % lanes)
        , first(threadIdx.x / lanes)
        , step(kGateThreads / lanes)
    {
    }
};

template <typename T>
__global__ void __launch_bounds__(kGateThreads)
    make_gates(T const* __restrict__ w1, T const* __restrict__ w2, Scratch scratch, Perceptron of)
{
    std::size_t const image = blockIdx.x;
    Pooled* const pooled = scratch.pooled + image * of.channels;
    float* const hidden = scratch.hidden + image * of.hidden;

    Team const on_parts(of.part_lanes);
    for (std::uint32_t first = 0; first < of.channels; first += on_parts.step)
    {
        std::uint32_t const channel = first + on_parts.first;
        Pooled total = nothing_pooled();
        if (channel < of.channels)
        {
            Pooled const* const partials = scratch.partials + (image * of.channels + channel) * of.parts;
            for (std::uint32_t part = on_parts.lane; part < of.parts; part += of.part_lanes)
            {
                total.add(partials[part]);
            }
        }
        total = pool_over(total, 1, of.part_lanes);
        if (channel < of.channels && on_parts.lane == 0)
        {
            pooled[channel] = {total.sum / of.pixels, total.greatest};
        }
    }
    __syncthreads();

    Team const on_channels(kWarp);
    for (std::uint32_t first = 0; first < of.hidden; first += on_channels.step)
    {
        std::uint32_t const row = first + on_channels.first;
        float of_mean = 0.0F;
        float of_greatest = 0.0F;
        if (row < of.hidden)
        {
            T const* const weights = w1 + std::size_t{row} * of.channels;
            for (std::uint32_t channel = on_channels.lane; channel < of.channels; channel += kWarp)
            {
                Pooled const values = pooled[channel];
                float const weight = to_float(weights[channel]);
                of_mean += weight * values.sum;
                of_greatest += weight * values.greatest;
            }
        }
        of_mean = sum_over(of_mean, 1, kWarp);
        of_greatest = sum_over(of_greatest, 1, kWarp);
        if (row < of.hidden && on_channels.lane == 0)
        {
            // The second layer is linear: what it makes of both is what it makes of their sum.
            hidden[row] = relu(of_mean) + relu(of_greatest);
        }
    }
    __syncthreads();

    Team const on_hidden(of.hidden_lanes);
    for (std::uint32_t first = 0; first < of.channels; first += on_hidden.step)
    {
        std::uint32_t const channel = first + on_hidden.first;
        float logit = 0.0F;
        if (channel < of.channels)
        {
            T const* const weights = w2 + std::size_t{channel} * of.hidden;
            for (std::uint32_t row = on_hidden.lane; row < of.hidden; row += of.hidden_lanes)
            {
                logit += to_float(weights[row]) * hidden[row];
            }
        }
        logit = sum_over(logit, 1, of.hidden_lanes);
        if (channel < of.channels && on_hidden.lane == 0)
        {
            scratch.gates[image * of.channels + channel] = sigmoid(logit);
        }
    }
}

// `by` divides packs into planes.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) multiply_linear(T const* __restrict__ x, float const* __restrict__ gates,
    T* __restrict__ y, std::uint32_t channels, Divider by, std::uint32_t image_blocks)
{
    std::uint32_t const image = blockIdx.x / image_blocks;
    std::uint32_t const pack = (blockIdx.x - image * image_blocks) * kThreads + threadIdx.x;
    std::uint32_t const packs = channels * by.divisor();
    if (pack >= packs)
    {
        return;
    }
    std::size_t const offset = std::size_t{image} * packs * kCount;
    Pack<T, kCount> values;
    values.load_streaming(x + offset, pack);
    float const gate = gates[std::size_t{image} * channels + by.quotient(pack)];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        values.values[i] = from_float<T>(to_float(values.values[i]) * gate);
    }
    values.store(y + offset, pack);
}

// `by` divides packs into pixels.
__global__ void __launch_bounds__(kThreads) multiply_hwc8(__half const* __restrict__ x,
    float const* __restrict__ gates, __half* __restrict__ y, std::uint32_t pixels, Divider by,
    std::uint32_t image_blocks)
{
    constexpr int kCount = 8;
    std::uint32_t const image = blockIdx.x / image_blocks;
    std::uint32_t const pack = (blockIdx.x - image * image_blocks) * kThreads + threadIdx.x;
    std::uint32_t const packs = pixels * by.divisor();
    if (pack >= packs)
    {
        return;
    }
    std::size_t const offset = std::size_t{image} * packs * kCount;
    Pack<__half, kCount> values;
    values.load_streaming(x + offset, pack);
    Pack<float, kCount> gate;
    gate.load(gates + std::size_t{image} * by.divisor() * kCount, by.remainder(pack, by.quotient(pack)));
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        values.values[i] = __float2half_rn(__half2float(values.values[i]) * gate.values[i]);
    }
    values.store(y + offset, pack);
}

template <typename T>
cudaError_t launch_gates(ChannelGateProblem const& problem, Pooling const& pooling, T const* w1, T const* w2,
    Scratch const& scratch, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    Perceptron of{};
    of.channels = static_cast<std::uint32_t>(shape.channels);
    of.hidden = static_cast<std::uint32_t>(problem.hidden);
    of.parts = static_cast<std::uint32_t>(pooling.parts);
    of.part_lanes = lanes_for(pooling.parts);
    of.hidden_lanes = lanes_for(problem.hidden);
    of.pixels = static_cast<float>(shape.height * shape.width);
    make_gates<T><<<static_cast<unsigned>(shape.batch), kGateThreads, 0, stream>>>(w1, w2, scratch, of);
    return cudaGetLastError();
}

template <typename T, int kCount>
cudaError_t gate_linear(ChannelGateProblem const& problem, Pooling const& pooling, T const* x, T const* w1,
    T const* w2, T* y, Scratch const& scratch, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    std::int64_t const plane_packs = shape.height * shape.width / kCount;
    PlaneParts parts{};
    parts.channels = static_cast<std::uint32_t>(shape.channels);
    parts.plane_packs = static_cast<std::uint32_t>(plane_packs);
    parts.part_packs = static_cast<std::uint32_t>(pooling.part / kCount);
    parts.parts = static_cast<std::uint32_t>(pooling.parts);
    parts.lanes = std::max<std::uint32_t>(kWarp, lanes_for(std::min(plane_packs, pooling.part / kCount), kThreads));
    std::int64_t const pool_blocks = ceiling(shape.channels * pooling.parts * parts.lanes, kThreads);
    parts.image_blocks = static_cast<std::uint32_t>(pool_blocks);
    pool_linear<T, kCount><<<static_cast<unsigned>(shape.batch * pool_blocks), kThreads, 0, stream>>>(
        x, scratch.partials, parts);
    if (cudaError_t const error = cudaGetLastError(); error != cudaSuccess)
    {
        return error;
    }
    if (cudaError_t const error = launch_gates(problem, pooling, w1, w2, scratch, stream); error != cudaSuccess)
    {
        return error;
    }
    std::int64_t const blocks = ceiling(shape.channels * plane_packs, kThreads);
    multiply_linear<T, kCount><<<static_cast<unsigned>(shape.batch * blocks), kThreads, 0, stream>>>(x, scratch.gates,
        y, parts.channels, Divider(parts.plane_packs), static_cast<std::uint32_t>(blocks));
    return cudaGetLastError();
}

template <typename T, int kCount = 16 / static_cast<int>(sizeof(T))>
cudaError_t gate_linear_widest(int count, ChannelGateProblem const& problem, Pooling const& pooling, T const* x,
    T const* w1, T const* w2, T* y, Scratch const& scratch, cudaStream_t stream)
{
    if constexpr (kCount > 1)
    {
        if (count < kCount)
        {
            return gate_linear_widest<T, kCount / 2>(count, problem, pooling, x, w1, w2, y, scratch, stream);
        }
    }
    return gate_linear<T, kCount>(problem, pooling, x, w1, w2, y, scratch, stream);
}

template <typename T>
cudaError_t gate_any_linear(ChannelGateProblem const& problem, Pooling const& pooling, void const* x, void const* w1,
    void const* w2, void* y, Scratch const& scratch, cudaStream_t stream)
{
    std::int64_t const pixels = problem.shape.height * problem.shape.width;
    int const count = pack_count(16 / static_cast<int>(sizeof(T)), pixels, sizeof(T), x, y);
    return gate_linear_widest<T>(count, problem, pooling, static_cast<T const*>(x), static_cast<T const*>(w1),
        static_cast<T const*>(w2), static_cast<T*>(y), scratch, stream);
}

cudaError_t gate_hwc8(ChannelGateProblem const& problem, Pooling const& pooling, __half const* x, __half const* w1,
    __half const* w2, __half* y, Scratch const& scratch, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    if (pack_count(8, shape.channels, sizeof(__half), x, y) < 8)
    {
        return cudaErrorMisalignedAddress;
    }
    std::int64_t const pixels = shape.height * shape.width;
    std::int64_t const packs = shape.channels / 8;
    PixelParts parts{};
    parts.pixels = static_cast<std::uint32_t>(pixels);
    parts.pixel_packs = static_cast<std::uint32_t>(packs);
    parts.part = static_cast<std::uint32_t>(pooling.part);
    parts.parts = static_cast<std::uint32_t>(pooling.parts);
    parts.lanes = lanes_for(packs);
    parts.groups = static_cast<std::uint32_t>(ceiling(packs, parts.lanes));
    std::int64_t const pool_blocks = shape.batch * parts.groups * pooling.parts;
    pool_hwc8<<<static_cast<unsigned>(pool_blocks), kThreads, 0, stream>>>(x, scratch.partials, parts);
    if (cudaError_t const error = cudaGetLastError(); error != cudaSuccess)
    {
        return error;
    }
    if (cudaError_t const error = launch_gates(problem, pooling, w1, w2, scratch, stream); error != cudaSuccess)
    {
        return error;
    }
    std::int64_t const blocks = ceiling(pixels * packs, kThreads);
    multiply_hwc8<<<static_cast<unsigned>(shape.batch * blocks), kThreads, 0, stream>>>(
        x, scratch.gates, y, parts.pixels, Divider(parts.pixel_packs), static_cast<std::uint32_t>(blocks));
    return cudaGetLastError();
}

} // namespace

cudaError_t channel_gate_cuda(ChannelGateProblem const& problem, void const* x, void const* w1, void const* w2,
    void* y, void* workspace, cudaStream_t stream)
{
    Pooling const pooling = pooling_of(problem);
    Scratch const scratch(problem, pooling, workspace);
    if (problem.layout == Layout::kHwc8)
    {
        return gate_hwc8(problem, pooling, static_cast<__half const*>(x), static_cast<__half const*>(w1),
            static_cast<__half const*>(w2), static_cast<__half*>(y), scratch, stream);
    }
    return problem.type == Type::kFloat ? gate_any_linear<float>(problem, pooling, x, w1, w2, y, scratch, stream)
                                        : gate_any_linear<__half>(problem, pooling, x, w1, w2, y, scratch, stream);
}

} // namespace irforge
