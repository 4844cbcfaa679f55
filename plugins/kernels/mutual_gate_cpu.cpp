#include "arithmetic.h"
#include "clones.h"
#include "cpu.h"
#include "half.h"

#include <algorithm>

namespace irforge
{
namespace
{

struct Rounding
{
    template <typename T>
    IRFORGE_INLINE void operator()(float value, T& to) const
    {
        store(value, to);
    }
};

struct Quantising
{
    Quantiser quantise;

    IRFORGE_INLINE void operator()(float value, std::int8_t& to) const
    {
        to = quantise(value);
    }
};

template <typename In, typename Out, typename Finish>
IRFORGE_CLONES void gate(std::int64_t count, In const* __restrict__ g, In const* __restrict__ l,
    Out* __restrict__ gated_g, Out* __restrict__ gated_l, Finish finish_g, Finish finish_l)
{
    for (std::int64_t i = 0; i < count; ++i)
    {
        Gated const gated = mutual_gate(to_float(g[i]), to_float(l[i]));
        finish_g(gated.g, gated_g[i]);
        finish_l(gated.l, gated_l[i]);
    }
}

template <typename In, typename Out, typename Finish>
void gate_share(MutualGateProblem const& problem, std::int64_t first, std::int64_t last, void const* g, void const* l,
    void* y, Finish finish_g, Finish finish_l)
{
    Shape const& shape = problem.shape;
    std::int64_t const image = shape.channels * shape.height * shape.width;
    while (first < last)
    {
        std::int64_t const start = first / image * image;
        std::int64_t const count = std::min(last, start + image) - first;
        Out* const gated = static_cast<Out*>(y) + start + first;
        gate(count, static_cast<In const*>(g) + first, static_cast<In const*>(l) + first, gated, gated + image,
            finish_g, finish_l);
        first += count;
    }
}

template <typename In>
void gate_to_type(MutualGateProblem const& problem, std::int64_t first, std::int64_t last, void const* g,
    void const* l, void* y)
{
    switch (problem.output)
    {
    case Type::kFloat: return gate_share<In, float>(problem, first, last, g, l, y, Rounding{}, Rounding{});
    case Type::kHalf: return gate_share<In, Half>(problem, first, last, g, l, y, Rounding{}, Rounding{});
    case Type::kInt8:
        return gate_share<In, std::int8_t>(problem, first, last, g, l, y, Quantising{Quantiser(problem.scale_g)},
            Quantising{Quantiser(problem.scale_l)});
    }
}

} // namespace

void mutual_gate_cpu(MutualGateProblem const& problem, std::int64_t first, std::int64_t last, void const* g,
    void const* l, void* y)
{
    if (problem.input == Type::kFloat)
    {
        gate_to_type<float>(problem, first, last, g, l, y);
    }
    else
    {
        gate_to_type<Half>(problem, first, last, g, l, y);
    }
}

void mutual_gate_cpu(MutualGateProblem const& problem, void const* g, void const* l, void* y)
{
    Shape const& shape = problem.shape;
    mutual_gate_cpu(problem, 0, shape.batch * shape.channels * shape.height * shape.width, g, l, y);
}

} // namespace irforge
