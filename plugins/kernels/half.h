// IEEE half precision on a CPU without instructions for it: integer arithmetic with selects, which compilers vectorise.
#pragma once

#include "arithmetic.h"

namespace irforge
{

struct Half
{
    std::uint16_t bits;
};

IRFORGE_INLINE float to_float(float value)
{
    return value;
}

// Exact.
IRFORGE_INLINE float to_float(Half half)
{
    constexpr std::uint32_t kRebias = 112U << 23; // from half's exponent bias of 15 to float's of 127
    std::uint32_t const magnitude = static_cast<std::uint32_t>(half.bits & 0x7FFFU) << 13;
    std::uint32_t const finite = magnitude + kRebias;
    std::uint32_t const normal_or_special = magnitude >= (31U << 23) ? finite + kRebias : finite;
    // A subnormal half is given an implicit one that the subtraction takes away again.
    constexpr std::uint32_t kImplicitOne = 113U << 23;
    float const subnormal = bits_as<float>(magnitude + kImplicitOne) - bits_as<float>(kImplicitOne);
    std::uint32_t const unsigned_bits
        = magnitude < (1U << 23) ? bits_as<std::uint32_t>(subnormal) : normal_or_special;
    return bits_as<float>(unsigned_bits | static_cast<std::uint32_t>(half.bits & 0x8000U) << 16);
}

IRFORGE_INLINE void store(float value, float& to)
{
    to = value;
}

// Rounds half to even; overflows to infinity; keeps NaN.
IRFORGE_INLINE void store(float value, Half& to)
{
    std::uint32_t const bits = bits_as<std::uint32_t>(value);
    std::int32_t const magnitude = static_cast<std::int32_t>(bits & 0x7FFFFFFFU);

    // A sum with 0.5 has the spacing of subnormal halves, so the addition does the rounding.
    constexpr std::int32_t kHalfOne = 126 << 23;
    std::int32_t const subnormal = bits_as<std::int32_t>(bits_as<float>(magnitude) + 0.5F) - kHalfOne;
    // What is added below the kept bits carries into them exactly when the value must be rounded up.
    std::int32_t const normal = (magnitude - (112 << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13;

    std::int32_t half = magnitude < (113 << 23) ? subnormal : normal;
    half = magnitude >= (143 << 23) ? 0x7C00 : half;
    half = magnitude > (255 << 23) ? 0x7E00 : half;
    to.bits = static_cast<std::uint16_t>(static_cast<std::uint32_t>(half) | (bits >> 16 & 0x8000U));
}

} // namespace irforge
