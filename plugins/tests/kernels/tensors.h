// Tensors of the kernels' types and layouts as the tests see them: doubles in N, C, H, W order.
#pragma once

#include <kernels/problem.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace irforge::test
{

using Bytes = std::vector<std::byte>;

std::int64_t elements(Shape const& shape);

Bytes encode(std::vector<double> const& values, Type type, Layout layout, Shape const& shape);
std::vector<double> decode(Bytes const& bytes, Type type, Layout layout, Shape const& shape);

// Evenly spread over -reach..reach and representable in `type`, so that a reference sees what the kernel sees.
std::vector<double> spread(std::int64_t count, double reach, Type type, unsigned seed);

std::string text(Type type);
std::string text(Layout layout);
std::string text(Shape const& shape);

} // namespace irforge::test
