// What the CUDA kernels share: vector accesses, conversions in registers, pooling, division by a runtime constant.
#pragma once

#include "grid.h"

#include <cuda_fp16.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace irforge
{

constexpr int smaller(int a, int b)
{
    return a < b ? a : b;
}

template <int kBytes>
struct WordOf;
template <>
struct WordOf<1>
{
    using Type = unsigned char;
};
template <>
struct WordOf<2>
{
    using Type = unsigned short;
};
template <>
struct WordOf<4>
{
    using Type = unsigned int;
};
template <>
struct WordOf<8>
{
    using Type = uint2;
};
template <>
struct WordOf<16>
{
    using Type = uint4;
};

// kCount neighbours of type T, moved in words of at most 16 bytes.
template <typename T, int kCount>
struct Pack
{
    static constexpr int kWordBytes = smaller(16, kCount * static_cast<int>(sizeof(T)));
    static constexpr int kWords = kCount * static_cast<int>(sizeof(T)) / kWordBytes;
    using Word = typename WordOf<kWordBytes>::Type;

    union
    {
        Word words[kWords];
        T values[kCount];
    };

    __device__ __forceinline__ Pack() {}

    // `index` counts packs. Streaming marks the line as the first to leave the caches: it will not be read again.
    __device__ __forceinline__ void load_streaming(T const* from, std::uint32_t index)
    {
        Word const* const source = reinterpret_cast<Word const*>(from) + std::size_t{index} * kWords;
#pragma unroll
        for (int i = 0; i < kWords; ++i)
        {
            words[i] = __ldcs(source + i);
        }
    }

    __device__ __forceinline__ void load(T const* from, std::uint32_t index)
    {
        Word const* const source = reinterpret_cast<Word const*>(from) + std::size_t{index} * kWords;
#pragma unroll
        for (int i = 0; i < kWords; ++i)
        {
            words[i] = source[i];
        }
    }

    __device__ __forceinline__ void store(T* to, std::uint32_t index) const
    {
        Word* const target = reinterpret_cast<Word*>(to) + std::size_t{index} * kWords;
#pragma unroll
        for (int i = 0; i < kWords; ++i)
        {
            target[i] = words[i];
        }
    }
};

__device__ __forceinline__ float to_float(float value)
{
    return value;
}

__device__ __forceinline__ float to_float(__half value)
{
    return __half2float(value);
}

template <typename T>
__device__ __forceinline__ T from_float(float value);

template <>
__device__ __forceinline__ float from_float<float>(float value)
{
    return value;
}

template <>
__device__ __forceinline__ __half from_float<__half>(float value)
{
    return __float2half_rn(value);
}

// The sum and the maximum of what has been added. Aligned, to move as one word.
struct alignas(8) Pooled
{
    float sum;
    float greatest;

    __device__ __forceinline__ void add(float value)
    {
        sum += value;
        greatest = fmaxf(greatest, value);
    }

    __device__ __forceinline__ void add(Pooled const& other)
    {
        sum += other.sum;
        greatest = fmaxf(greatest, other.greatest);
    }
};

__device__ __forceinline__ Pooled nothing_pooled()
{
    return {0.0F, -INFINITY};
}

// Over the threads of a warp whose numbers differ in the bits first..last/2, powers of two; each of them gets the sum.
__device__ __forceinline__ float sum_over(float value, std::uint32_t first, std::uint32_t last)
{
    for (std::uint32_t distance = first; distance < last; distance *= 2)
    {
        value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
    }
    return value;
}

__device__ __forceinline__ Pooled pool_over(Pooled total, std::uint32_t first, std::uint32_t last)
{
    for (std::uint32_t distance = first; distance < last; distance *= 2)
    {
        Pooled other;
        other.sum = __shfl_xor_sync(0xFFFFFFFFU, total.sum, distance);
        other.greatest = __shfl_xor_sync(0xFFFFFFFFU, total.greatest, distance);
        total.add(other);
    }
    return total;
}

// n / divisor for n < 2^31 by one multiplication: with 2^(bits-1) < divisor <= 2^bits, the rounding of the multiplier
// adds less than n * 2^bits / 2^(31+bits) < 1 / divisor to the quotient.
class Divider
{
public:
    explicit Divider(std::uint32_t divisor)
        : divisor_(divisor)
    {
        std::uint32_t bits = 0;
        while ((std::uint64_t{1} << bits) < divisor)
        {
            ++bits;
        }
        shift_ = 31 + bits;
        multiplier_ = static_cast<std::uint32_t>(((std::uint64_t{1} << shift_) + divisor - 1) / divisor);
    }

    __device__ __forceinline__ std::uint32_t quotient(std::uint32_t n) const
    {
        return static_cast<std::uint32_t>((std::uint64_t{n} * multiplier_) >> shift_);
    }

    __device__ __forceinline__ std::uint32_t remainder(std::uint32_t n, std::uint32_t quotient) const
    {
        return n - quotient * divisor_;
    }

    __host__ __device__ __forceinline__ std::uint32_t divisor() const
    {
        return divisor_;
    }

private:
    std::uint32_t divisor_;
    std::uint32_t multiplier_;
    std::uint32_t shift_;
};

// The largest power of two, at most `most`, that divides `length` and at which packs of both types are aligned at each
// of the addresses.
template <typename... Pointers>
int pack_count(int most, std::int64_t length, std::size_t element_bytes, Pointers... pointers)
{
    int count = most;
    auto const fits = [&](int n)
    {
        std::size_t const bytes = n * element_bytes < 16 ? n * element_bytes : 16;
        return length % n == 0 && ((reinterpret_cast<std::uintptr_t>(pointers) % bytes == 0) && ...);
    };
    while (count > 1 && !fits(count))
    {
        count /= 2;
    }
    return count;
}

} // namespace irforge
