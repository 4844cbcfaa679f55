#include "arithmetic.h"
#include "cuda.h"
#include "device.cuh"

#include <algorithm>

// Two launches, because a pixel's gate needs the pooled channels of its neighbours: the first pools the channels into
// an FP32 map of N x 2 x H x W, the second computes a tile of gates in shared memory and multiplies. X is read twice;
// the first pass leaves it in the L2 cache, where the second finds as much of it as fits.

namespace irforge
{
namespace
{

constexpr int kPoolColumns = 32;
constexpr int kPoolSplits = kThreads / kPoolColumns;
constexpr int kPoolPitch = kPoolColumns + 4; // spreads what a warp reads over the banks of shared memory

// A column of threads pools the channels of one pack of pixels, every thread an eighth of them.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) pool_linear(T const* __restrict__ x, float* __restrict__ pooled,
    std::uint32_t channels, std::uint32_t image_packs, std::uint32_t image_blocks)
{
    __shared__ Pooled partial[kPoolSplits][kPoolPitch * kCount];

    std::uint32_t const column = threadIdx.x % kPoolColumns;
    std::uint32_t const split = threadIdx.x / kPoolColumns;
    std::uint32_t const image = blockIdx.x / image_blocks;
    std::uint32_t const pack = (blockIdx.x - image * image_blocks) * kPoolColumns + column;
    std::size_t const pixels = std::size_t{image_packs} * kCount;
    T const* const images = x + std::size_t{image} * channels * pixels;

    Pooled mine[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        mine[i] = nothing_pooled();
    }
    if (pack < image_packs)
    {
#pragma unroll 4
        for (std::uint32_t channel = split; channel < channels; channel += kPoolSplits)
        {
            Pack<T, kCount> values;
            values.load(images, channel * image_packs + pack);
#pragma unroll
            for (int i = 0; i < kCount; ++i)
            {
                mine[i].add(to_float(values.values[i]));
            }
        }
    }
    // Threads of a warp write neighbouring addresses, not neighbouring pixels.
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        partial[split][i * kPoolPitch + column] = mine[i];
    }
    __syncthreads();

    for (std::uint32_t slot = threadIdx.x; slot < kPoolColumns * kCount; slot += kThreads)
    {
        std::uint32_t const of_column = slot / kCount;
        std::uint32_t const of_pack = slot % kCount;
        std::uint32_t const pixel = (blockIdx.x - image * image_blocks) * kPoolColumns * kCount + slot;
        if (pixel < pixels)
        {
            Pooled total = partial[0][of_pack * kPoolPitch + of_column];
#pragma unroll
            for (int other = 1; other < kPoolSplits; ++other)
            {
                total.add(partial[other][of_pack * kPoolPitch + of_column]);
            }
            float* const means = pooled + std::size_t{image} * 2 * pixels;
            means[pixel] = total.sum / static_cast<float>(channels);
            means[pixels + pixel] = total.greatest;
        }
    }
}

// `lanes` threads, a power of two up to 32, share a pixel's channels.
__global__ void __launch_bounds__(kThreads) pool_hwc8(__half const* __restrict__ x, float* __restrict__ pooled,
    std::uint32_t pixel_packs, std::uint32_t lanes, std::uint32_t pixels, std::uint32_t image_blocks)
{
    constexpr int kCount = 8;
    std::uint32_t const lane = threadIdx.x % lanes;
    std::uint32_t const image = blockIdx.x / image_blocks;
    std::uint32_t const pixel
        = (blockIdx.x - image * image_blocks) * (kThreads / lanes) + threadIdx.x / lanes;

    Pooled total = nothing_pooled();
    if (pixel < pixels)
    {
        __half const* const from = x + (std::size_t{image} * pixels + pixel) * pixel_packs * kCount;
#pragma unroll 4
        for (std::uint32_t pack = lane; pack < pixel_packs; pack += lanes)
        {
            Pack<__half, kCount> values;
            values.load(from, pack);
#pragma unroll
            for (int i = 0; i < kCount; ++i)
            {
                total.add(to_float(values.values[i]));
            }
        }
    }
    total = pool_over(total, 1, lanes);
    if (lane == 0 && pixel < pixels)
    {
        float* const means = pooled + std::size_t{image} * 2 * pixels;
        means[pixel] = total.sum / static_cast<float>(pixel_packs * kCount);
        means[std::size_t{pixels} + pixel] = total.greatest;
    }
}

constexpr int kTileWidth = 64; // a row of halves is a whole cache line
constexpr int kTileHeight = 8;
constexpr int kTile = kTileWidth * kTileHeight;
constexpr int kStrip = 4; // gates that one thread computes together, to load each pooled value once for all

struct Tiling
{
    std::uint32_t height;
    std::uint32_t width;
    std::uint32_t columns;       // tiles in a row of the image
    std::uint32_t image_tiles;   // tiles in an image
    std::uint32_t groups;        // parts that the channels are cut into, each with its own blocks
    std::uint32_t group;         // channels, or packs of channels in hwc8, in each part
    std::uint32_t all;           // channels, or packs of channels in hwc8
};

// What a block works on: one group of channels in one tile of one image.
struct Place
{
    std::uint32_t image;
    std::uint32_t top;
    std::uint32_t left;
    std::uint32_t first;
    std::uint32_t last;

    __device__ __forceinline__ explicit Place(Tiling const& tiling)
    {
        std::uint32_t const group_of_all = blockIdx.x / tiling.image_tiles;
        std::uint32_t const tile = blockIdx.x - group_of_all * tiling.image_tiles;
        image = group_of_all / tiling.groups;
        std::uint32_t const row = tile / tiling.columns;
        top = row * kTileHeight;
        left = (tile - row * tiling.columns) * kTileWidth;
        first = (group_of_all - image * tiling.groups) * tiling.group;
        last = min(first + tiling.group, tiling.all);
    }
};

__host__ __device__ constexpr int padded_width(int side)
{
    return kTileWidth + side - 1;
}

__host__ __device__ constexpr int padded_tile(int side)
{
    return padded_width(side) * (kTileHeight + side - 1);
}

// Weights, the two pooled maps under the tile with their margin, and the gates.
std::size_t shared_bytes(int side)
{
    return (2 * side * side + 2 * padded_tile(side) + kTile) * sizeof(float);
}

// The gates of the block's tile, in shared memory. kSide 0 stands for any side.
template <typename T, int kSide>
__device__ __forceinline__ float const* tile_of_gates(Tiling const& tiling, Place const& place,
    float const* __restrict__ pooled, T const* __restrict__ weight, int any_side)
{
    extern __shared__ float shared[];
    int const side = kSide > 0 ? kSide : any_side;
    int const width = padded_width(side);
    int const padded = padded_tile(side);
    float* const weights = shared;
    float* const maps = weights + 2 * side * side;
    float* const gates = maps + 2 * padded;

    for (int i = static_cast<int>(threadIdx.x); i < 2 * side * side; i += kThreads)
    {
        weights[i] = to_float(weight[i]);
    }
    std::size_t const pixels = std::size_t{tiling.height} * tiling.width;
    float const* const means = pooled + std::size_t{place.image} * 2 * pixels;
    for (int i = static_cast<int>(threadIdx.x); i < padded; i += kThreads)
    {
        // Above and left of the image the unsigned coordinates wrap to large ones.
        std::uint32_t const y = place.top + i / width - side / 2;
        std::uint32_t const x = place.left + i % width - side / 2;
        bool const inside = y < tiling.height && x < tiling.width;
        std::size_t const pixel = std::size_t{y} * tiling.width + x;
        maps[i] = inside ? means[pixel] : 0.0F;
        maps[padded + i] = inside ? means[pixels + pixel] : 0.0F;
    }
    __syncthreads();

    for (int strip = static_cast<int>(threadIdx.x); strip < kTile / kStrip; strip += kThreads)
    {
        int const y = strip / (kTileWidth / kStrip);
        int const x = strip % (kTileWidth / kStrip) * kStrip;
        if (place.top + y >= tiling.height || place.left + x >= tiling.width)
        {
            continue;
        }
        float sums[kStrip] = {};
        for (int map = 0; map < 2; ++map)
        {
#pragma unroll
            for (int dy = 0; dy < side; ++dy)
            {
                float const* const values = maps + map * padded + (y + dy) * width + x;
                float const* const row = weights + (map * side + dy) * side;
                float window[kStrip];
#pragma unroll
                for (int i = 0; i < kStrip - 1; ++i)
                {
                    window[i + 1] = values[i];
                }
#pragma unroll
                for (int dx = 0; dx < side; ++dx)
                {
#pragma unroll
                    for (int i = 0; i < kStrip - 1; ++i)
                    {
                        window[i] = window[i + 1];
                    }
                    window[kStrip - 1] = values[dx + kStrip - 1];
#pragma unroll
                    for (int i = 0; i < kStrip; ++i)
                    {
                        sums[i] += row[dx] * window[i];
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kStrip; ++i)
        {
            gates[y * kTileWidth + x + i] = sigmoid(sums[i]);
        }
    }
    __syncthreads();
    return gates;
}

template <typename T, int kCount, int kSide>
__global__ void __launch_bounds__(kThreads) multiply_linear(T const* __restrict__ x, float const* __restrict__ pooled,
    T const* __restrict__ weight, T* __restrict__ y, Tiling tiling, int side)
{
    constexpr int kTilePacks = kTile / kCount;
    constexpr int kRowPacks = kTileWidth / kCount;
    constexpr int kLanes = kTilePacks < kThreads ? kThreads / kTilePacks : 1; // channels in work at a time

    Place const place(tiling);
    float const* const gates = tile_of_gates<T, kSide>(tiling, place, pooled, weight, side);

    std::uint32_t const plane_packs = tiling.height * tiling.width / kCount;
    std::size_t const image = std::size_t{place.image} * tiling.all * plane_packs * kCount;
    for (int slot = static_cast<int>(threadIdx.x); slot < kTilePacks * kLanes; slot += kThreads)
    {
        int const tile_pack = slot % kTilePacks;
        std::uint32_t const row = place.top + tile_pack / kRowPacks;
        std::uint32_t const column = place.left + tile_pack % kRowPacks * kCount;
        if (row >= tiling.height || column >= tiling.width)
        {
            continue;
        }
        float gate[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i)
        {
            gate[i] = gates[tile_pack * kCount + i];
        }
        std::uint32_t const pack = (row * tiling.width + column) / kCount;
#pragma unroll 4
        for (std::uint32_t channel = place.first + slot / kTilePacks; channel < place.last; channel += kLanes)
        {
            Pack<T, kCount> values;
            values.load_streaming(x + image, channel * plane_packs + pack);
#pragma unroll
            for (int i = 0; i < kCount; ++i)
            {
                values.values[i] = from_float<T>(to_float(values.values[i]) * gate[i]);
            }
            values.store(y + image, channel * plane_packs + pack);
        }
    }
}

template <int kSide>
__global__ void __launch_bounds__(kThreads) multiply_hwc8(__half const* __restrict__ x,
    float const* __restrict__ pooled, __half const* __restrict__ weight, __half* __restrict__ y, Tiling tiling,
    std::uint32_t lanes, int side)
{
    constexpr int kCount = 8;
    Place const place(tiling);
    float const* const gates = tile_of_gates<__half, kSide>(tiling, place, pooled, weight, side);

    std::size_t const image = std::size_t{place.image} * tiling.height * tiling.width * tiling.all * kCount;
#pragma unroll 2
    for (std::uint32_t of_tile = threadIdx.x / lanes; of_tile < kTile; of_tile += kThreads / lanes)
    {
        std::uint32_t const row = place.top + of_tile / kTileWidth;
        std::uint32_t const column = place.left + of_tile % kTileWidth;
        if (row >= tiling.height || column >= tiling.width)
        {
            continue;
        }
        float const gate = gates[of_tile];
        std::uint32_t const pixel = (row * tiling.width + column) * tiling.all;
        for (std::uint32_t pack = place.first + threadIdx.x % lanes; pack < place.last; pack += lanes)
        {
            Pack<__half, kCount> values;
            values.load_streaming(x + image, pixel + pack);
#pragma unroll
            for (int i = 0; i < kCount; ++i)
            {
                values.values[i] = __float2half_rn(__half2float(values.values[i]) * gate);
            }
            values.store(y + image, pixel + pack);
        }
    }
}

// A group is at least `least` long, which bounds the share of gates that are computed more than once.
Tiling tile(Shape const& shape, std::int64_t all, std::int64_t least)
{
    std::int64_t const columns = ceiling(shape.width, kTileWidth);
    std::int64_t const tiles = columns * ceiling(shape.height, kTileHeight);
    std::int64_t const wanted = ceiling(kEnoughBlocks, tiles * shape.batch);
    std::int64_t const group = std::max(std::min(least, all), ceiling(all, wanted));
    Tiling tiling{};
    tiling.height = static_cast<std::uint32_t>(shape.height);
    tiling.width = static_cast<std::uint32_t>(shape.width);
    tiling.columns = static_cast<std::uint32_t>(columns);
    tiling.image_tiles = static_cast<std::uint32_t>(tiles);
    tiling.groups = static_cast<std::uint32_t>(ceiling(all, group));
    tiling.group = static_cast<std::uint32_t>(group);
    tiling.all = static_cast<std::uint32_t>(all);
    return tiling;
}

template <typename T, int kCount>
cudaError_t gate_linear(
    SpatialGateProblem const& problem, T const* x, T const* weight, T* y, float* pooled, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    std::int64_t const packs = shape.height * shape.width / kCount;
    // Wide packs serve large maps; a small one is better spread over more threads.
    if constexpr (kCount > 1)
    {
        if (ceiling(packs, kPoolColumns) * shape.batch < kEnoughBlocks)
        {
            return gate_linear<T, kCount / 2>(problem, x, weight, y, pooled, stream);
        }
    }
    std::int64_t const image_blocks = ceiling(packs, kPoolColumns);
    pool_linear<T, kCount><<<static_cast<unsigned>(image_blocks * shape.batch), kThreads, 0, stream>>>(x, pooled,
        static_cast<std::uint32_t>(shape.channels), static_cast<std::uint32_t>(packs),
        static_cast<std::uint32_t>(image_blocks));
    if (cudaError_t const error = cudaGetLastError(); error != cudaSuccess)
    {
        return error;
    }

    Tiling const tiling = tile(shape, shape.channels, 8);
    auto const kernel = problem.kernel == 7 ? multiply_linear<T, kCount, 7> : multiply_linear<T, kCount, 0>;
    std::int64_t const blocks = shape.batch * tiling.groups * tiling.image_tiles;
    kernel<<<static_cast<unsigned>(blocks), kThreads, shared_bytes(problem.kernel), stream>>>(
        x, pooled, weight, y, tiling, problem.kernel);
    return cudaGetLastError();
}

template <typename T, int kCount = 16 / static_cast<int>(sizeof(T))>
cudaError_t gate_linear_widest(
    int count, SpatialGateProblem const& problem, T const* x, T const* weight, T* y, float* pooled, cudaStream_t stream)
{
    if constexpr (kCount > 1)
    {
        if (count < kCount)
        {
            return gate_linear_widest<T, kCount / 2>(count, problem, x, weight, y, pooled, stream);
        }
    }
    return gate_linear<T, kCount>(problem, x, weight, y, pooled, stream);
}

template <typename T>
cudaError_t gate_any_linear(SpatialGateProblem const& problem, void const* x, void const* weight, void* y,
    float* pooled, cudaStream_t stream)
{
    int const count = pack_count(16 / static_cast<int>(sizeof(T)), problem.shape.width, sizeof(T), x, y);
    return gate_linear_widest<T>(count, problem, static_cast<T const*>(x), static_cast<T const*>(weight),
        static_cast<T*>(y), pooled, stream);
}

cudaError_t gate_hwc8(SpatialGateProblem const& problem, __half const* x, __half const* weight, __half* y,
    float* pooled, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    if (pack_count(8, shape.channels, sizeof(__half), x, y) < 8)
    {
        return cudaErrorMisalignedAddress;
    }
    auto const packs = static_cast<std::uint32_t>(shape.channels / 8);
    std::uint32_t const pool_lanes = lanes_for(packs);
    std::int64_t const pixels = shape.height * shape.width;
    std::int64_t const image_blocks = ceiling(pixels, kThreads / pool_lanes);
    pool_hwc8<<<static_cast<unsigned>(image_blocks * shape.batch), kThreads, 0, stream>>>(
        x, pooled, packs, pool_lanes, static_cast<std::uint32_t>(pixels), static_cast<std::uint32_t>(image_blocks));
    if (cudaError_t const error = cudaGetLastError(); error != cudaSuccess)
    {
        return error;
    }

    // Groups of two packs keep every access a whole sector.
    Tiling const tiling = tile(shape, packs, 2);
    auto const kernel = problem.kernel == 7 ? multiply_hwc8<7> : multiply_hwc8<0>;
    std::int64_t const blocks = shape.batch * tiling.groups * tiling.image_tiles;
    kernel<<<static_cast<unsigned>(blocks), kThreads, shared_bytes(problem.kernel), stream>>>(
        x, pooled, weight, y, tiling, lanes_for(tiling.group), problem.kernel);
    return cudaGetLastError();
}

} // namespace

cudaError_t spatial_gate_cuda(SpatialGateProblem const& problem, void const* x, void const* weight, void* y,
    void* workspace, cudaStream_t stream)
{
    auto* const pooled = static_cast<float*>(workspace);
    if (problem.layout == Layout::kHwc8)
    {
        return gate_hwc8(problem, static_cast<__half const*>(x), static_cast<__half const*>(weight),
            static_cast<__half*>(y), pooled, stream);
    }
    return problem.type == Type::kFloat ? gate_any_linear<float>(problem, x, weight, y, pooled, stream)
                                        : gate_any_linear<__half>(problem, x, weight, y, pooled, stream);
}

} // namespace irforge
