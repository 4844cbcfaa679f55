#include "tensors.h"

#include <kernels/half.h>

#include <random>

namespace irforge::test
{
namespace
{

std::int64_t offset(Layout layout, Shape const& s, std::int64_t n, std::int64_t c, std::int64_t pixel)
{
    std::int64_t const pixels = s.height * s.width;
    switch (layout)
    {
    case Layout::kLinear: return (n * s.channels + c) * pixels + pixel;
    case Layout::kHwc8: return (n * pixels + pixel) * s.channels + c;
    case Layout::kChw32: return ((n * (s.channels / 32) + c / 32) * pixels + pixel) * 32 + c % 32;
    }
    return 0;
}

template <typename Visit>
void for_each_element(Layout layout, Shape const& s, Visit visit)
{
    std::size_t index = 0;
    for (std::int64_t n = 0; n < s.batch; ++n)
    {
        for (std::int64_t c = 0; c < s.channels; ++c)
        {
            for (std::int64_t pixel = 0; pixel < s.height * s.width; ++pixel)
            {
                visit(index++, static_cast<std::size_t>(offset(layout, s, n, c, pixel)));
            }
        }
    }
}

} // namespace

std::int64_t elements(Shape const& shape)
{
    return shape.batch * shape.channels * shape.height * shape.width;
}

Bytes encode(std::vector<double> const& values, Type type, Layout layout, Shape const& shape)
{
    Bytes bytes(values.size() * size_of(type));
    for_each_element(layout, shape,
        [&](std::size_t index, std::size_t at)
        {
            float const value = static_cast<float>(values[index]);
            if (type == Type::kHalf)
            {
                store(value, reinterpret_cast<Half*>(bytes.data())[at]);
            }
            else
            {
                reinterpret_cast<float*>(bytes.data())[at] = value;
            }
        });
    return bytes;
}

std::vector<double> decode(Bytes const& bytes, Type type, Layout layout, Shape const& shape)
{
    std::vector<double> values(static_cast<std::size_t>(elements(shape)));
    for_each_element(layout, shape,
        [&](std::size_t index, std::size_t at)
        {
            switch (type)
            {
            case Type::kFloat: values[index] = reinterpret_cast<float const*>(bytes.data())[at]; break;
            case Type::kHalf: values[index] = to_float(reinterpret_cast<Half const*>(bytes.data())[at]); break;
            case Type::kInt8: values[index] = reinterpret_cast<std::int8_t const*>(bytes.data())[at]; break;
            }
        });
    return values;
}

std::vector<double> spread(std::int64_t count, double reach, Type type, unsigned seed)
{
    std::mt19937 random(seed);
    std::vector<double> values(static_cast<std::size_t>(count));
    for (double& value : values)
    {
        value = reach * (random() / 2147483648.0 - 1.0);
    }
    Shape const flat{1, 1, 1, count};
    return decode(encode(values, type, Layout::kLinear, flat), type, Layout::kLinear, flat);
}

std::string text(Type type)
{
    return type == Type::kFloat ? "float32" : type == Type::kHalf ? "float16" : "int8";
}

std::string text(Layout layout)
{
    return layout == Layout::kLinear ? "linear" : layout == Layout::kHwc8 ? "hwc8" : "chw32";
}

std::string text(Shape const& shape)
{
    return std::to_string(shape.batch) + "x" + std::to_string(shape.channels) + "x" + std::to_string(shape.height) + "x"
        + std::to_string(shape.width);
}

} // namespace irforge::test
