#include "layouts.h"

#include <cuda_fp16.h>

#include <cstring>
#include <stdexcept>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

std::size_t size_of(DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT: return sizeof(float);
    case DataType::kHALF: return sizeof(__half);
    case DataType::kINT8: return sizeof(std::int8_t);
    default: throw std::invalid_argument("a type that no plugin takes");
    }
}

// Where element (n, c, h, w) lies, for numbers of channels that need no padding.
std::int64_t place(PluginTensorDesc const& tensor, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w)
{
    std::int64_t const channels = tensor.dims.d[1];
    std::int64_t const height = tensor.dims.d[2];
    std::int64_t const width = tensor.dims.d[3];
    switch (tensor.format)
    {
    case TensorFormat::kLINEAR: return ((n * channels + c) * height + h) * width + w;
    case TensorFormat::kHWC8: return ((n * height + h) * width + w) * channels + c;
    case TensorFormat::kCHW32: return (((n * (channels / 32) + c / 32) * height + h) * width + w) * 32 + c % 32;
    default: throw std::invalid_argument("a format that no plugin takes");
    }
}

void store(double value, DataType type, std::byte* to)
{
    switch (type)
    {
    case DataType::kFLOAT:
    {
        auto const single = static_cast<float>(value);
        std::memcpy(to, &single, sizeof single);
        break;
    }
    case DataType::kHALF:
    {
        __half const half = __double2half(value);
        std::memcpy(to, &half, sizeof half);
        break;
    }
    default: throw std::invalid_argument("a type that no plugin reads");
    }
}

double load(std::byte const* from, DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT:
    {
        float single = 0.0F;
        std::memcpy(&single, from, sizeof single);
        return single;
    }
    case DataType::kHALF:
    {
        __half half;
        std::memcpy(&half, from, sizeof half);
        return __half2float(half);
    }
    case DataType::kINT8:
    {
        std::int8_t integer = 0;
        std::memcpy(&integer, from, sizeof integer);
        return integer;
    }
    default: throw std::invalid_argument("a type that no plugin writes");
    }
}

// Calls visit(index in N, C, H, W order, offset in bytes) for every element.
template <typename Visit>
void for_each_element(PluginTensorDesc const& tensor, Visit visit)
{
    std::size_t index = 0;
    for (std::int64_t n = 0; n < tensor.dims.d[0]; ++n)
    {
        for (std::int64_t c = 0; c < tensor.dims.d[1]; ++c)
        {
            for (std::int64_t h = 0; h < tensor.dims.d[2]; ++h)
            {
                for (std::int64_t w = 0; w < tensor.dims.d[3]; ++w)
                {
                    visit(index++, static_cast<std::size_t>(place(tensor, n, c, h, w)) * size_of(tensor.type));
                }
            }
        }
    }
}

} // namespace

std::size_t elements(Dims const& dims)
{
    std::size_t product = 1;
    for (std::int32_t i = 0; i < dims.nbDims; ++i)
    {
        product *= static_cast<std::size_t>(dims.d[i]);
    }
    return product;
}

std::size_t bytes(PluginTensorDesc const& tensor)
{
    return elements(tensor.dims) * size_of(tensor.type);
}

std::vector<std::byte> encode(std::vector<double> const& values, PluginTensorDesc const& tensor)
{
    std::vector<std::byte> encoded(bytes(tensor));
    for_each_element(tensor, [&](std::size_t index, std::size_t offset)
        { store(values.at(index), tensor.type, encoded.data() + offset); });
    return encoded;
}

std::vector<double> decode(std::vector<std::byte> const& encoded, PluginTensorDesc const& tensor)
{
    std::vector<double> values(elements(tensor.dims));
    for_each_element(tensor, [&](std::size_t index, std::size_t offset)
        { values[index] = load(encoded.data() + offset, tensor.type); });
    return values;
}

} // namespace irforge::test
