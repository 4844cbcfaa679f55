#include "refusal_checks.h"

#include "check.h"

#include <kernels/problem.h>

#include <cmath>
#include <string>

namespace irforge::test
{
namespace
{

template <typename Problem, typename Change>
void expect(Problem problem, std::string const& words, Change change)
{
    change(problem);
    char const* const text = refusal(problem);
    if (words.empty())
    {
        CHECK_IN(text == nullptr, text == nullptr ? "" : text);
        return;
    }
    if (CHECK_IN(text != nullptr, words))
    {
        CHECK_IN(std::string(text).find(words) != std::string::npos, std::string(text) + " / " + words);
        CHECK_IN(std::string(text).find('\n') == std::string::npos, text);
    }
}

} // namespace

void check_mutual_gate_refusals()
{
    MutualGateProblem good;
    good.shape = {2, 64, 5, 7};
    good.input = Type::kHalf;
    good.output = Type::kHalf;
    good.scale_g = 0.5F;
    good.scale_l = 0.25F;
    using P = MutualGateProblem;
    auto const hwc8_to = [](P& p, Layout layout, Type type)
    {
        p.input_layout = Layout::kHwc8;
        p.output_layout = layout;
        p.output = type;
    };

    expect(good, "", [](P&) {});
    expect(good, "at least 1", [](P& p) { p.shape.height = 0; });
    expect(good, "at least 1", [](P& p) { p.shape.batch = -1; });
    expect(good, "2^31", [](P& p) { p.shape = {1, 65536, 65536, 1}; });
    expect(good, "2^31", [](P& p) { p.shape = {1, 1LL << 40, 1LL << 40, 1LL << 40}; });
    expect(good, "", [](P& p) { p.shape = {1LL << 20, 1024, 50, 76}; });
    expect(good, "reads float32 or float16", [](P& p) { p.input = Type::kInt8; });
    expect(good, "reads float32 or float16", [](P& p) { p.input = static_cast<Type>(9); });
    expect(good, "writes float32, float16 or int8", [](P& p) { p.output = static_cast<Type>(-1); });
    for (float const scale : {0.0F, -1.0F, 1e-38F, 1e37F, INFINITY, NAN})
    {
        expect(good, "scale_g and scale_l", [&](P& p) { p.output = Type::kInt8, p.scale_g = scale; });
        expect(good, "scale_g and scale_l", [&](P& p) { p.output = Type::kInt8, p.scale_l = scale; });
        expect(good, "", [&](P& p) { p.scale_g = scale; });
    }
    expect(good, "", [&](P& p) { hwc8_to(p, Layout::kHwc8, Type::kHalf); });
    expect(good, "", [&](P& p) { hwc8_to(p, Layout::kChw32, Type::kInt8); });
    expect(good, "linear to linear", [&](P& p) { hwc8_to(p, Layout::kHwc8, Type::kInt8); });
    expect(good, "linear to linear", [&](P& p) { hwc8_to(p, Layout::kChw32, Type::kHalf); });
    expect(good, "linear to linear", [&](P& p) { hwc8_to(p, Layout::kLinear, Type::kHalf); });
    expect(good, "linear to linear", [&](P& p) { hwc8_to(p, Layout::kHwc8, Type::kHalf), p.input = Type::kFloat; });
    expect(good, "that 8 divides", [&](P& p) { hwc8_to(p, Layout::kHwc8, Type::kHalf), p.shape.channels = 12; });
    expect(good, "that 32 divides", [&](P& p) { hwc8_to(p, Layout::kChw32, Type::kInt8), p.shape.channels = 40; });
}

void check_spatial_gate_refusals()
{
    SpatialGateProblem const good{{2, 16, 5, 7}, Type::kHalf, Layout::kLinear, 7};
    using P = SpatialGateProblem;
    expect(good, "", [](P&) {});
    expect(good, "at least 1", [](P& p) { p.shape.width = 0; });
    expect(good, "2^31", [](P& p) { p.shape = {1, 65536, 65536, 1}; });
    expect(good, "float32 or float16", [](P& p) { p.type = Type::kInt8; });
    expect(good, "k odd", [](P& p) { p.kernel = 4; });
    expect(good, "k odd", [](P& p) { p.kernel = 17; });
    expect(good, "k odd", [](P& p) { p.kernel = -1; });
    expect(good, "", [](P& p) { p.layout = Layout::kHwc8; });
    expect(good, "hwc8 with float16", [](P& p) { p.layout = Layout::kHwc8, p.type = Type::kFloat; });
    expect(good, "hwc8 with float16", [](P& p) { p.layout = Layout::kChw32; });
    expect(good, "that 8 divides", [](P& p) { p.layout = Layout::kHwc8, p.shape.channels = 12; });
}

void check_channel_gate_refusals()
{
    ChannelGateProblem const good{{2, 16, 5, 7}, Type::kHalf, Layout::kLinear, 1};
    using P = ChannelGateProblem;
    expect(good, "", [](P&) {});
    expect(good, "at least 1", [](P& p) { p.shape.width = 0; });
    expect(good, "2^31", [](P& p) { p.shape = {1, 65536, 65536, 1}; });
    expect(good, "float32 or float16", [](P& p) { p.type = Type::kInt8; });
    expect(good, "h at least 1", [](P& p) { p.hidden = 0; });
    expect(good, "h at least 1", [](P& p) { p.hidden = 1LL << 40; });
    expect(good, "", [](P& p) { p.shape.channels = 2048, p.hidden = 2048; });
    expect(good, "", [](P& p) { p.layout = Layout::kHwc8; });
    expect(good, "hwc8 with float16", [](P& p) { p.layout = Layout::kHwc8, p.type = Type::kFloat; });
    expect(good, "hwc8 with float16", [](P& p) { p.layout = Layout::kChw32; });
    expect(good, "that 8 divides", [](P& p) { p.layout = Layout::kHwc8, p.shape.channels = 12; });
}

} // namespace irforge::test
