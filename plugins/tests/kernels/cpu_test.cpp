#include "check.h"
#include "gates.h"
#include "refusal_checks.h"

#include <kernels/c_api.h>
#include <kernels/cpu.h>
#include <kernels/half.h>

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace irforge;
using namespace irforge::test;

namespace
{

// A copy that starts `shift` elements past an aligned address.
class Shifted
{
public:
    Shifted(std::size_t bytes, std::size_t shift)
        : storage_(bytes + shift)
        , shift_(shift)
    {
    }

    Shifted(Bytes const& bytes, std::size_t shift)
        : Shifted(bytes.size(), shift)
    {
        std::copy(bytes.begin(), bytes.end(), data());
    }

    std::byte* data()
    {
        return storage_.data() + shift_;
    }

    Bytes bytes() const
    {
        return {storage_.begin() + static_cast<std::ptrdiff_t>(shift_), storage_.end()};
    }

private:
    Bytes storage_;
    std::size_t shift_;
};

class Cpu : public Device
{
public:
    Bytes mutual_gate(MutualGateProblem const& problem, Bytes const& g, Bytes const& l, int shift) override
    {
        std::size_t const in = shift * size_of(problem.input);
        std::size_t const out = size_of(problem.output);
        Shifted from_g(g, in);
        Shifted from_l(l, in);
        Shifted y(2 * elements(problem.shape) * out, shift * out);
        mutual_gate_cpu(problem, from_g.data(), from_l.data(), y.data());
        return y.bytes();
    }

    Bytes spatial_gate(SpatialGateProblem const& problem, Bytes const& x, Bytes const& weight, int shift) override
    {
        std::size_t const past = shift * size_of(problem.type);
        Shifted from(x, past);
        Shifted weights(weight, past);
        Shifted y(x.size(), past);
        spatial_gate_cpu(problem, from.data(), weights.data(), y.data());
        return y.bytes();
    }

    Bytes channel_gate(
        ChannelGateProblem const& problem, Bytes const& x, Bytes const& w1, Bytes const& w2, int shift) override
    {
        std::size_t const past = shift * size_of(problem.type);
        Shifted from(x, past);
        Shifted first(w1, past);
        Shifted second(w2, past);
        Shifted y(x.size(), past);
        channel_gate_cpu(problem, from.data(), first.data(), second.data(), y.data());
        return y.bytes();
    }

    bool has(Layout layout) const override
    {
        return layout == Layout::kLinear;
    }
};

std::uint16_t half_bits(float value)
{
    Half half;
    store(value, half);
    return half.bits;
}

// Every finite half, and the three floats where rounding to it turns into rounding to the next one.
void check_halves()
{
    bool exact = true;
    bool rounded = true;
    for (std::uint16_t bits = 0; bits < 0x7C00; ++bits)
    {
        int const exponent = bits >> 10;
        int const fraction = bits & 0x3FF;
        float const value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                          : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
        auto const negative = static_cast<std::uint16_t>(bits | 0x8000);
        exact = exact && to_float(Half{bits}) == value && to_float(Half{negative}) == -value && half_bits(value) == bits
            && half_bits(-value) == negative;

        auto const next = static_cast<std::uint16_t>(bits + 1); // of the greatest half, infinity
        float const middle = value + std::ldexp(1.0F, std::max(exponent, 1) - 26);
        std::uint16_t const even = bits % 2 == 0 ? bits : next;
        rounded = rounded && half_bits(middle) == even && half_bits(std::nextafter(middle, 0.0F)) == bits
            && half_bits(std::nextafter(middle, 1e6F)) == next;
    }
    CHECK(exact);
    CHECK(rounded);
    CHECK(std::isinf(to_float(Half{0x7C00})) && half_bits(INFINITY) == 0x7C00 && half_bits(-1e30F) == 0xFC00);
    CHECK(std::isnan(to_float(Half{0x7C01})) && std::isnan(to_float(Half{half_bits(NAN)})));
}

void check_shares_make_the_whole()
{
    MutualGateProblem gate;
    gate.shape = {3, 5, 7, 11};
    auto const input = [&](unsigned seed)
    {
        return encode(spread(elements(gate.shape), 4.0, Type::kFloat, seed), Type::kFloat, Layout::kLinear, gate.shape);
    };
    Bytes const g = input(1);
    Bytes const l = input(2);
    Bytes whole(2 * g.size());
    mutual_gate_cpu(gate, g.data(), l.data(), whole.data());
    for (std::int64_t const share : {1, 100, 385, 1000})
    {
        Bytes shared(whole.size());
        for (std::int64_t first = 0; first < elements(gate.shape); first += share)
        {
            std::int64_t const last = std::min(elements(gate.shape), first + share);
            mutual_gate_cpu(gate, first, last, g.data(), l.data(), shared.data());
        }
        CHECK_IN(shared == whole, "elements " + std::to_string(share));
    }

    SpatialGateProblem const spatial{gate.shape, Type::kFloat, Layout::kLinear, 7};
    Bytes const weight = encode(spread(98, 0.3, Type::kFloat, 3), Type::kFloat, Layout::kLinear, {1, 2, 7, 7});
    Bytes gated(g.size());
    spatial_gate_cpu(spatial, g.data(), weight.data(), gated.data());
    for (std::int64_t const share : {1, 2, 5, 7, 16})
    {
        Bytes shared(gated.size());
        for (std::int64_t first = 0; first < 21; first += share)
        {
            spatial_gate_cpu(
                spatial, first, std::min<std::int64_t>(21, first + share), g.data(), weight.data(), shared.data());
        }
        CHECK_IN(shared == gated, "rows " + std::to_string(share));
    }

    ChannelGateProblem const channel{gate.shape, Type::kFloat, Layout::kLinear, 2};
    Bytes const w1 = encode(spread(10, 0.5, Type::kFloat, 4), Type::kFloat, Layout::kLinear, {2, 5, 1, 1});
    Bytes const w2 = encode(spread(10, 0.5, Type::kFloat, 5), Type::kFloat, Layout::kLinear, {5, 2, 1, 1});
    channel_gate_cpu(channel, g.data(), w1.data(), w2.data(), gated.data());
    for (std::int64_t const share : {1, 2, 4, 15})
    {
        Bytes shared(gated.size());
        std::vector<float> pooled(30);
        std::vector<float> gates(15);
        for (std::int64_t first = 0; first < 15; first += share)
        {
            channel_gate_pool_cpu(channel, first, std::min<std::int64_t>(15, first + share), g.data(), pooled.data());
        }
        channel_gate_gates_cpu(channel, w1.data(), w2.data(), pooled.data(), gates.data());
        for (std::int64_t first = 0; first < 15; first += share)
        {
            channel_gate_multiply_cpu(channel, first, std::min<std::int64_t>(15, first + share), g.data(),
                gates.data(), shared.data());
        }
        CHECK_IN(shared == gated, "maps " + std::to_string(share));
    }
}

void check_c_api()
{
    float const g[] = {-2.0F, 2.0F};
    float const l[] = {3.0F, -1.0F};
    float y[4] = {};
    irforge_mutual_gate gate{1, 1, 1, 2, IRFORGE_FLOAT32, IRFORGE_FLOAT32, IRFORGE_LINEAR, IRFORGE_LINEAR, 0.0F, 0.0F};
    CHECK(irforge_mutual_gate_refusal(&gate) == nullptr);
    CHECK(irforge_mutual_gate_cpu(&gate, g, l, y) == 0);
    float direct[4] = {};
    MutualGateProblem problem;
    problem.shape = {1, 1, 1, 2};
    mutual_gate_cpu(problem, g, l, direct);
    CHECK(std::memcmp(y, direct, sizeof y) == 0);
    gate.output_type = IRFORGE_INT8;
    CHECK(irforge_mutual_gate_cpu(&gate, g, l, y) == IRFORGE_REFUSED);
    CHECK(std::strstr(irforge_mutual_gate_refusal(&gate), "scale_g") != nullptr);
    gate.input_layout = IRFORGE_HWC8;
    CHECK(std::strstr(irforge_mutual_gate_refusal(&gate), "linear") != nullptr);

    float const weight[2] = {};
    float x[2] = {4.0F, -6.0F};
    irforge_spatial_gate spatial{1, 1, 1, 2, IRFORGE_FLOAT32, IRFORGE_LINEAR, 1};
    CHECK(irforge_spatial_gate_cpu(&spatial, x, weight, y) == 0);
    CHECK(y[0] == 2.0F && y[1] == -3.0F);
    spatial.kernel = 2;
    CHECK(irforge_spatial_gate_cpu(&spatial, x, weight, y) == IRFORGE_REFUSED);

    irforge_channel_gate channel{1, 1, 1, 2, IRFORGE_FLOAT32, IRFORGE_LINEAR, 2};
    CHECK(irforge_channel_gate_cpu(&channel, x, weight, weight, y) == 0);
    CHECK(y[0] == 2.0F && y[1] == -3.0F);
    channel.hidden = 0;
    CHECK(irforge_channel_gate_cpu(&channel, x, weight, weight, y) == IRFORGE_REFUSED);
    channel.layout = IRFORGE_HWC8;
    CHECK(std::strstr(irforge_channel_gate_refusal(&channel), "linear") != nullptr);
}

} // namespace

int main()
{
    Cpu cpu;
    check_mutual_gate(cpu);
    check_spatial_gate(cpu);
    check_channel_gate(cpu);
    check_halves();
    check_shares_make_the_whole();
    check_mutual_gate_refusals();
    check_spatial_gate_refusals();
    check_channel_gate_refusals();
    check_c_api();
    return report("CPU kernels");
}
