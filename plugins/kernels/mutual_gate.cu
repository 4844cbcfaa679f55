#include "arithmetic.h"
#include "cuda.h"
#include "device.cuh"

#include <algorithm>
#include <type_traits>

// The op moves bytes and computes little, so everything here serves the memory system. A thread handles one pack: 16
// bytes of the narrower of the two types, so at least 16 bytes of G and of L are in flight for each of up to 2048
// threads of a multiprocessor, 64 KiB, several times what latency times bandwidth asks of one. G and L are read for
// the last time and leave the caches first; Y is stored to stay, since the next layer reads it.

namespace irforge
{
namespace
{

template <typename T>
struct Rounding
{
    __device__ __forceinline__ T operator()(float value) const
    {
        return from_float<T>(value);
    }
};

template <typename T>
using Finish = std::conditional_t<std::is_same_v<T, std::int8_t>, Quantiser, Rounding<T>>;

template <typename T>
Finish<T> finish(float scale)
{
    if constexpr (std::is_same_v<T, std::int8_t>)
    {
        return Quantiser(scale);
    }
    else
    {
        return {};
    }
}

template <typename In, typename Out, int kCount>
__device__ __forceinline__ void gate(Pack<In, kCount> const& g, Pack<In, kCount> const& l, Finish<Out> finish_g,
    Finish<Out> finish_l, Pack<Out, kCount>& gated_g, Pack<Out, kCount>& gated_l)
{
#pragma unroll
    for (int i = 0; i < kCount; ++i)
    {
        Gated const gated = mutual_gate(to_float(g.values[i]), to_float(l.values[i]));
        gated_g.values[i] = finish_g(gated.g);
        gated_l.values[i] = finish_l(gated.l);
    }
}

// A row of G and one of L become two rows of Y. In the linear layout a row is an image; in hwc8 it is a pixel.
template <typename In, typename Out, int kCount>
__global__ void __launch_bounds__(kThreads) gate_rows(In const* __restrict__ g, In const* __restrict__ l,
    Out* __restrict__ y, std::uint32_t packs, Divider row_packs, Finish<Out> finish_g, Finish<Out> finish_l)
{
    std::uint32_t const pack = blockIdx.x * kThreads + threadIdx.x;
    if (pack >= packs)
    {
        return;
    }
    Pack<In, kCount> pack_g;
    Pack<In, kCount> pack_l;
    pack_g.load_streaming(g, pack);
    pack_l.load_streaming(l, pack);

    Pack<Out, kCount> gated_g;
    Pack<Out, kCount> gated_l;
    gate<In, Out>(pack_g, pack_l, finish_g, finish_l, gated_g, gated_l);

    std::uint32_t const to = pack + row_packs.quotient(pack) * row_packs.divisor();
    gated_g.store(y, to);
    gated_l.store(y, to + row_packs.divisor());
}

// hwc8 halves to chw32 bytes. Neighbouring threads take the two half-blocks of a pixel, then the next pixel: a warp
// stores 512 bytes in a piece and reads 64, both whole sectors.
__global__ void __launch_bounds__(kThreads) gate_to_chw32(__half const* __restrict__ g, __half const* __restrict__ l,
    std::int8_t* __restrict__ y, std::uint32_t packs, Divider plane_packs, Divider planes, Quantiser finish_g,
    Quantiser finish_l)
{
    constexpr int kCount = 16;
    std::uint32_t const pack = blockIdx.x * kThreads + threadIdx.x;
    if (pack >= packs)
    {
        return;
    }
    std::uint32_t const plane_of_all = plane_packs.quotient(pack);
    std::uint32_t const within_plane = plane_packs.remainder(pack, plane_of_all);
    std::uint32_t const image = planes.quotient(plane_of_all);
    std::uint32_t const plane = planes.remainder(plane_of_all, image);

    std::uint32_t const image_packs = planes.divisor() * plane_packs.divisor();
    std::uint32_t const from
        = image * image_packs + (within_plane / 2 * planes.divisor() + plane) * 2 + within_plane % 2;
    Pack<__half, kCount> pack_g;
    Pack<__half, kCount> pack_l;
    pack_g.load_streaming(g, from);
    pack_l.load_streaming(l, from);

    Pack<std::int8_t, kCount> gated_g;
    Pack<std::int8_t, kCount> gated_l;
    gate<__half, std::int8_t>(pack_g, pack_l, finish_g, finish_l, gated_g, gated_l);

    std::uint32_t const to = pack + image * image_packs;
    gated_g.store(y, to);
    gated_l.store(y, to + image_packs);
}

std::uint32_t blocks_for(std::uint32_t packs)
{
    return (packs + kThreads - 1) / kThreads;
}

// Kernels index in 32 bits, so a larger problem is queued in slices of whole rows: 2^30 packs read, 2^31 written.
template <typename Launch>
cudaError_t in_slices(std::int64_t rows, std::int64_t row_packs, Launch launch)
{
    std::int64_t const most = std::max<std::int64_t>(1, (std::int64_t{1} << 30) / row_packs);
    for (std::int64_t row = 0; row < rows; row += most)
    {
        launch(row, static_cast<std::uint32_t>(std::min(most, rows - row) * row_packs));
        if (cudaError_t const error = cudaGetLastError(); error != cudaSuccess)
        {
            return error;
        }
    }
    return cudaSuccess;
}

template <typename In, typename Out, int kCount>
cudaError_t launch_rows(MutualGateProblem const& problem, std::int64_t rows, std::int64_t length, In const* g,
    In const* l, Out* y, cudaStream_t stream)
{
    Divider const row_packs(static_cast<std::uint32_t>(length / kCount));
    return in_slices(rows, length / kCount,
        [&](std::int64_t row, std::uint32_t packs)
        {
            gate_rows<In, Out, kCount><<<blocks_for(packs), kThreads, 0, stream>>>(g + row * length, l + row * length,
                y + 2 * row * length, packs, row_packs, finish<Out>(problem.scale_g), finish<Out>(problem.scale_l));
        });
}

template <typename In, typename Out, int kCount = 16 / smaller(sizeof(In), sizeof(Out))>
cudaError_t launch_widest(int count, MutualGateProblem const& problem, std::int64_t rows, std::int64_t length,
    In const* g, In const* l, Out* y, cudaStream_t stream)
{
    if constexpr (kCount > 1)
    {
        if (count < kCount)
        {
            return launch_widest<In, Out, kCount / 2>(count, problem, rows, length, g, l, y, stream);
        }
    }
    return launch_rows<In, Out, kCount>(problem, rows, length, g, l, y, stream);
}

template <typename In, typename Out>
cudaError_t gate_in_rows(
    MutualGateProblem const& problem, void const* g, void const* l, void* y, cudaStream_t stream)
{
    Shape const& shape = problem.shape;
    std::int64_t const pixels = shape.height * shape.width;
    bool const linear = problem.input_layout == Layout::kLinear;
    std::int64_t const rows = linear ? shape.batch : shape.batch * pixels;
    std::int64_t const length = linear ? shape.channels * pixels : shape.channels;
    int const widest = 16 / smaller(sizeof(In), sizeof(Out));
    int const count
        = std::min(pack_count(widest, length, sizeof(In), g, l), pack_count(widest, length, sizeof(Out), y));
    return launch_widest<In, Out>(count, problem, rows, length, static_cast<In const*>(g), static_cast<In const*>(l),
        static_cast<Out*>(y), stream);
}

cudaError_t gate_in_chw32(
    MutualGateProblem const& problem, void const* g, void const* l, void* y, cudaStream_t stream)
{
    constexpr int kCount = 16;
    Shape const& shape = problem.shape;
    std::int64_t const image = shape.channels * shape.height * shape.width;
    if (pack_count(kCount, image, sizeof(__half), g, l) < kCount || pack_count(kCount, image, 1, y) < kCount)
    {
        return cudaErrorMisalignedAddress;
    }
    Divider const plane_packs(static_cast<std::uint32_t>(shape.height * shape.width * 2));
    Divider const planes(static_cast<std::uint32_t>(shape.channels / 32));
    return in_slices(shape.batch, image / kCount,
        [&](std::int64_t first, std::uint32_t packs)
        {
            std::int64_t const offset = first * image;
            gate_to_chw32<<<blocks_for(packs), kThreads, 0, stream>>>(static_cast<__half const*>(g) + offset,
                static_cast<__half const*>(l) + offset, static_cast<std::int8_t*>(y) + 2 * offset, packs, plane_packs,
                planes, Quantiser(problem.scale_g), Quantiser(problem.scale_l));
        });
}

template <typename In>
cudaError_t gate_to_type(
    MutualGateProblem const& problem, void const* g, void const* l, void* y, cudaStream_t stream)
{
    switch (problem.output)
    {
    case Type::kFloat: return gate_in_rows<In, float>(problem, g, l, y, stream);
    case Type::kHalf: return gate_in_rows<In, __half>(problem, g, l, y, stream);
    case Type::kInt8: return gate_in_rows<In, std::int8_t>(problem, g, l, y, stream);
    }
    return cudaErrorInvalidValue;
}

} // namespace

cudaError_t mutual_gate_cuda(
    MutualGateProblem const& problem, void const* g, void const* l, void* y, cudaStream_t stream)
{
    if (problem.output_layout == Layout::kChw32)
    {
        return gate_in_chw32(problem, g, l, y, stream);
    }
    return problem.input == Type::kFloat ? gate_to_type<float>(problem, g, l, y, stream)
                                         : gate_to_type<__half>(problem, g, l, y, stream);
}

} // namespace irforge
