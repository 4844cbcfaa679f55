// How channel_gate_cuda cuts the map that it pools.
#pragma once

#include "problem.h"

namespace irforge
{

struct Pooling
{
    std::int64_t part;  // pixels that a block pools; a multiple of 8, so that no pack of pixels lies in two parts
    std::int64_t parts; // of a map
    std::int64_t slots; // room for the results of all parts, channels and images
};

Pooling pooling_of(ChannelGateProblem const& problem);

} // namespace irforge
