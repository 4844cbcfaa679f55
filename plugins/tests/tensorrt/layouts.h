// Tensors of the formats that the plugins take, between float64 on the host and bytes.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <vector>

namespace irforge::test
{

// Values in the order N, C, H, W, as the type holds them.
std::vector<std::byte> encode(std::vector<double> const& values, nvinfer1::PluginTensorDesc const& tensor);
std::vector<double> decode(std::vector<std::byte> const& encoded, nvinfer1::PluginTensorDesc const& tensor);

std::size_t elements(nvinfer1::Dims const& dims);
std::size_t bytes(nvinfer1::PluginTensorDesc const& tensor);

} // namespace irforge::test
