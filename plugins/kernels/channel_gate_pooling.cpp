#include "channel_gate_pooling.h"

#include "grid.h"

#include <algorithm>

namespace irforge
{

Pooling pooling_of(ChannelGateProblem const& problem)
{
    Shape const& shape = problem.shape;
    bool const linear = problem.layout == Layout::kLinear;
    std::int64_t const pixels = shape.height * shape.width;
    // In hwc8, threads side by side pool the packs of a pixel, and a block as many channels as they have.
    std::int64_t const lanes = linear ? 1 : lanes_for(shape.channels / 8);
    std::int64_t const block_channels = linear ? 1 : 8 * lanes;
    std::int64_t const blocks = shape.batch * ceiling(shape.channels, block_channels);
    // A part smaller than this costs more as a partial result than it brings as a block.
    std::int64_t const least = linear ? 8 * kThreads : 2 * kThreads / lanes;

    std::int64_t const wanted = std::max<std::int64_t>(1, kEnoughBlocks / blocks);
    Pooling pooling{};
    pooling.part = ceiling(std::max(least, ceiling(pixels, wanted)), 8) * 8;
    pooling.parts = ceiling(pixels, pooling.part);
    // An upper bound: the parts themselves may become more where the shape becomes smaller.
    pooling.slots = block_channels * std::min(blocks * ceiling(pixels, least), std::max(blocks, kEnoughBlocks));
    return pooling;
}

std::size_t channel_gate_workspace(ChannelGateProblem const& problem)
{
    Shape const& shape = problem.shape;
    // Partial and whole means and maxima, a gate for each channel, the hidden layer.
    std::int64_t const floats
        = 2 * pooling_of(problem).slots + 3 * shape.batch * shape.channels + shape.batch * problem.hidden;
    return static_cast<std::size_t>(floats) * sizeof(float);
}

} // namespace irforge
