#pragma once

#include <NvInferRuntime.h>

#include <array>

namespace irforge::test
{

// MutualGate's creator, QuantizedMutualGate's, SpatialGate's and ChannelGate's.
using Creators = std::array<nvinfer1::IPluginCreatorInterface*, 4>;

// Puts a faulty creator in the place of a good one. Each broken library defines it once, with its own fault.
void spoil(Creators& creators);

} // namespace irforge::test
