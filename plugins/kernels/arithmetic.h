// The arithmetic of the ops, once for CUDA and for the CPU. All of it is FP32. Where a function has a device form, it
// gives the same result, or one of the same accuracy, by the instructions that a GPU is quick at.
//
// sigmoid is right to 4e-7 relative wherever it is a normal number; below 2^-126 it may become zero. It is never NaN
// for a number or an infinity, and NaN for NaN.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define IRFORGE_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// A function that is compiled for several instruction sets must not call helpers that are compiled for one.
#define IRFORGE_INLINE inline __attribute__((always_inline))
#else
#define IRFORGE_INLINE inline
#endif

namespace irforge
{

template <typename To, typename From>
IRFORGE_INLINE To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// Adding 1.5 * 2^23 rounds a float of moderate size to the nearest integer, ties to even, and leaves that integer in
// the low bits: unlike a conversion, it runs at full rate on every GPU and vectorises on every CPU.
constexpr float kRounder = 12582912.0F;

IRFORGE_INLINE float exponential(float v)
{
#if defined(__CUDA_ARCH__)
    return expf(v); // two instructions more than __expf, whose error grows with |v|
#else
    // exp(v) = 2^n exp(r) with |r| <= ln(2) / 2. The comparisons let NaN through; the bounds keep n in -126..128, and
    // n = 128 makes the infinity that exp overflows to.
    constexpr float kLowest = -87.33F;
    constexpr float kHighest = 89.0F;
    constexpr float kLog2E = 1.44269504F;
    constexpr float kLn2High = 0.693359375F; // few enough bits that n * kLn2High is exact
    constexpr float kLn2Low = -2.12194440e-4F;
    v = kLowest > v ? kLowest : v;
    v = kHighest < v ? kHighest : v;
    float const shifted = v * kLog2E + kRounder;
    float const n = shifted - kRounder;
    float const r = (v - n * kLn2High) - n * kLn2Low;
    // Least relative error over |r| <= 0.35: 3.3e-9.
    float p = 1.38131448e-3F;
    p = p * r + 8.36941879e-3F;
    p = p * r + 4.16684560e-2F;
    p = p * r + 1.66665152e-1F;
    p = p * r + 4.99999940e-1F;
    p = (p * r) * r + r + 1.0F;
    return p * bits_as<float>((bits_as<std::uint32_t>(shifted) + 127U) << 23);
#endif
}

// 1 / x for x >= 1.
IRFORGE_INLINE float reciprocal(float x)
{
#if defined(__CUDA_ARCH__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); // 1 ulp; the exact one takes seven instructions and a branch
    return y;
#else
    return 1.0F / x;
#endif
}

IRFORGE_INLINE float sigmoid(float v)
{
    return reciprocal(1.0F + exponential(-v));
}

// Keeps NaN, as fmaxf(v, 0) would not.
IRFORGE_INLINE float relu(float v)
{
    return v < 0.0F ? 0.0F : v;
}

// Both halves of MutualGate.
struct Gated
{
    float g; // G * sigmoid(L)
    float l; // L * sigmoid(G)
};

IRFORGE_INLINE Gated mutual_gate(float g, float l)
{
    return {g * sigmoid(l), l * sigmoid(g)};
}

// `value` brought into lowest..highest; NaN becomes highest.
IRFORGE_INLINE float bounded(float value, float lowest, float highest)
{
#if defined(__CUDA_ARCH__)
    return fmaxf(fminf(value, highest), lowest);
#else
    value = value < highest ? value : highest;
    return value > lowest ? value : lowest;
#endif
}

// Between them scale, 1 / scale and 128 * scale are normal numbers.
constexpr float kLeastScale = 1.0e-36F;
constexpr float kGreatestScale = 1.0e+36F;

// value / scale, rounded half to even, saturated to -128..127; NaN becomes 127.
class Quantiser
{
public:
    IRFORGE_INLINE explicit Quantiser(float scale)
        : scale_(scale)
        , inverse_(1.0F / scale)
        , lowest_(-128.0F * scale)
        , highest_(127.0F * scale)
    {
    }

    IRFORGE_INLINE std::int8_t operator()(float value) const
    {
        // Saturating before the division keeps it free of overflow.
        value = bounded(value, lowest_, highest_);
        return static_cast<std::int8_t>(bits_as<std::int32_t>(quotient(value) + kRounder));
    }

private:
    // Correctly rounded, so that ties fall as they do for QuantizeLinear; a product with 1 / scale would miss some.
    IRFORGE_INLINE float quotient(float value) const
    {
#if defined(__CUDA_ARCH__)
        float const estimate = value * inverse_;
        return __fmaf_rn(__fmaf_rn(-estimate, scale_, value), inverse_, estimate);
#else
        return value / scale_;
#endif
    }

    float scale_;
    [[maybe_unused]] float inverse_; // on the CPU
    float lowest_;
    float highest_;
};

} // namespace irforge
