#include "tensors.h"

#include <algorithm>
#include <stdexcept>

namespace irforge::tensorrt
{

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

Encoding encoding_of(nvinfer1::PluginTensorDesc const& tensor)
{
    return {tensor.type, tensor.format};
}

bool operator==(Encoding const& left, Encoding const& right)
{
    return left.type == right.type && left.format == right.format;
}

Type type_of(Encoding const& encoding)
{
    switch (encoding.type)
    {
    case DataType::kFLOAT: return Type::kFloat;
    case DataType::kHALF: return Type::kHalf;
    case DataType::kINT8: return Type::kInt8;
    default: throw std::invalid_argument("no kernel for " + text(encoding));
    }
}

Layout layout_of(Encoding const& encoding)
{
    switch (encoding.format)
    {
    case TensorFormat::kLINEAR: return Layout::kLinear;
    case TensorFormat::kHWC8: return Layout::kHwc8;
    case TensorFormat::kCHW32: return Layout::kChw32;
    default: throw std::invalid_argument("no kernel for " + text(encoding));
    }
}

Shape shape_of(char const* name, nvinfer1::Dims const& dims)
{
    bool const known
        = dims.nbDims == 4 && std::all_of(dims.d, dims.d + 4, [](std::int64_t extent) { return extent >= 0; });
    if (!known)
    {
        throw std::invalid_argument(std::string{name} + " must be N x C x H x W, found " + text(dims));
    }
    return {dims.d[0], dims.d[1], dims.d[2], dims.d[3]};
}

bool operator==(Shape const& left, Shape const& right)
{
    return left.batch == right.batch && left.channels == right.channels && left.height == right.height
        && left.width == right.width;
}

std::string text(DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT: return "float32";
    case DataType::kHALF: return "float16";
    case DataType::kINT8: return "int8";
    default: return "data type " + std::to_string(static_cast<int>(type));
    }
}

std::string text(Encoding const& encoding)
{
    std::string const type = text(encoding.type);
    switch (encoding.format)
    {
    case TensorFormat::kLINEAR: return type + " linear";
    case TensorFormat::kHWC8: return type + " HWC8";
    case TensorFormat::kCHW32: return type + " CHW32";
    default: return type + " in format " + std::to_string(static_cast<int>(encoding.format));
    }
}

std::string text(nvinfer1::Dims const& dims)
{
    std::string extents;
    for (std::int32_t i = 0; i < dims.nbDims; ++i)
    {
        extents += (i == 0 ? "" : "x") + std::to_string(dims.d[i]);
    }
    return extents.empty() ? "no shape" : extents;
}

} // namespace irforge::tensorrt
