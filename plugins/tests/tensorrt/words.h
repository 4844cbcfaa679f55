// TensorRT's values in words, for tables and messages.
#pragma once

#include <NvInferRuntime.h>

#include <set>
#include <string>
#include <vector>

namespace irforge::test
{

std::string word(nvinfer1::DataType type);
std::string word(nvinfer1::TensorFormat format);
std::string join(std::set<std::string> const& words);

struct Encoding
{
    nvinfer1::DataType type;
    nvinfer1::TensorFormat format;
};

using Combination = std::vector<Encoding>;

// As "kHALF:kHWC8 kHALF:kHWC8 kINT8:kCHW32".
std::string word(Combination const& combination);
std::set<std::string> words(std::vector<Combination> const& combinations);

// The encodings that a plugin accepts, found as a builder finds them: tensor by tensor, those after it not set yet.
// The dimensions are those of the inputs and the output, -1 for an extent open until run time.
std::vector<Combination> accepted(nvinfer1::IPluginV3& plugin, std::vector<nvinfer1::Dims> const& dims);

// All that a plugin answers: two plugins of one description are the same to TensorRT.
std::string description(nvinfer1::IPluginV3& plugin);

} // namespace irforge::test
