// From TensorRT's description of a tensor to the kernels'.
#pragma once

#include <NvInferRuntime.h>

#include <kernels/problem.h>

#include <string>

namespace irforge::tensorrt
{

// How a tensor is held in memory.
struct Encoding
{
    nvinfer1::DataType type;
    nvinfer1::TensorFormat format;
};

Encoding encoding_of(nvinfer1::PluginTensorDesc const& tensor);
bool operator==(Encoding const& left, Encoding const& right);

// Throw std::invalid_argument for what no kernel knows.
Type type_of(Encoding const& encoding);
Layout layout_of(Encoding const& encoding);

// Throws std::invalid_argument unless `dims` is N x C x H x W with every extent known.
Shape shape_of(char const* name, nvinfer1::Dims const& dims);
bool operator==(Shape const& left, Shape const& right);

std::string text(nvinfer1::DataType type);
std::string text(Encoding const& encoding);
std::string text(nvinfer1::Dims const& dims);

} // namespace irforge::tensorrt
