// Sizes of CUDA grids, for the kernels and for what the host computes from them.
#pragma once

#include <cstdint>

namespace irforge
{

constexpr int kThreads = 256;

// Below this number of blocks a large GPU has idle multiprocessors, and the work is cut finer.
constexpr std::int64_t kEnoughBlocks = 512;

constexpr std::int64_t ceiling(std::int64_t a, std::int64_t b)
{
    return (a + b - 1) / b;
}

// The number of threads, a power of two up to `most`, that share `count` neighbours.
constexpr std::uint32_t lanes_for(std::int64_t count, std::uint32_t most = 32)
{
    std::uint32_t lanes = 1;
    while (lanes * 2 <= count && lanes < most)
    {
        lanes *= 2;
    }
    return lanes;
}

} // namespace irforge
