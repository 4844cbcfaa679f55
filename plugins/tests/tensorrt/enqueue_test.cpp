// Runs the plugins' kernels through enqueue and holds them to float64: enqueue_test LIBRARY. Exits with 77 where there
// is no CUDA device; `enqueue_test --device` only says whether there is one.
#include "check.h"
#include "device.h"
#include "host.h"
#include "layouts.h"
#include "reference.h"
#include "words.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

constexpr int kSkipped = 77;

constexpr float kScaleG = 0.037F;
constexpr float kScaleL = 0.0125F;
constexpr std::int64_t kSide = 7;
constexpr std::int64_t kHidden = 3;

struct Case
{
    char const* plugin;
    Combination tensors; // the inputs, then the output
    std::vector<std::vector<std::int64_t>> maps;
};

constexpr Encoding kFloat{DataType::kFLOAT, TensorFormat::kLINEAR};
constexpr Encoding kHalf{DataType::kHALF, TensorFormat::kLINEAR};
constexpr Encoding kHwc8{DataType::kHALF, TensorFormat::kHWC8};
constexpr Encoding kInt8{DataType::kINT8, TensorFormat::kLINEAR};
constexpr Encoding kChw32{DataType::kINT8, TensorFormat::kCHW32};

// In this order one plugin meets growing and shrinking shapes, as with a dynamic profile.
std::vector<std::vector<std::int64_t>> const kAnyChannels{
    {1, 1, 1, 1}, {2, 7, 5, 3}, {1, 64, 50, 76}, {3, 33, 17, 31}, {1, 3, 1, 129}, {2, 16, 8, 8}};
std::vector<std::vector<std::int64_t>> const kChannelsBy8{
    {1, 8, 1, 1}, {2, 24, 5, 7}, {1, 64, 50, 76}, {3, 40, 17, 31}};
std::vector<std::vector<std::int64_t>> const kChannelsBy32{{1, 32, 1, 1}, {2, 96, 5, 7}, {1, 64, 50, 76}};

std::vector<Case> const kCases{
    {"MutualGate", {kFloat, kFloat, kFloat}, kAnyChannels},
    {"MutualGate", {kHalf, kHalf, kHalf}, kAnyChannels},
    {"MutualGate", {kHwc8, kHwc8, kHwc8}, kChannelsBy8},
    {"QuantizedMutualGate", {kFloat, kFloat, kInt8}, kAnyChannels},
    {"QuantizedMutualGate", {kHalf, kHalf, kInt8}, kAnyChannels},
    {"QuantizedMutualGate", {kHwc8, kHwc8, kChw32}, kChannelsBy32},
    {"SpatialGate", {kFloat, kFloat, kFloat}, kAnyChannels},
    {"SpatialGate", {kHalf, kHalf, kHalf}, kAnyChannels},
    {"SpatialGate", {kHwc8, kHalf, kHwc8}, kChannelsBy8},
    {"ChannelGate", {kFloat, kFloat, kFloat, kFloat}, kAnyChannels},
    {"ChannelGate", {kHalf, kHalf, kHalf, kHalf}, kAnyChannels},
    {"ChannelGate", {kHwc8, kHalf, kHalf, kHwc8}, kChannelsBy8},
};

Fields fields_for(std::string const& plugin)
{
    return plugin == "QuantizedMutualGate" ? scales(&kScaleG, &kScaleL) : Fields{};
}

// Values around zero with a few that saturate the sigmoid, as `tensor` holds them.
std::vector<double> random_values(PluginTensorDesc const& tensor, double deviation, std::mt19937& generator)
{
    std::normal_distribution<double> normal{0.0, deviation};
    std::vector<double> values(elements(tensor.dims));
    for (std::size_t i = 0; i < values.size(); ++i)
    {
        values[i] = normal(generator) * (i % 97 == 0 ? 12.0 : 1.0);
    }
    return decode(encode(values, tensor), tensor);
}

// What rounding once to the output's type may differ.
double rounding(DataType output, double expected)
{
    switch (output)
    {
    case DataType::kHALF: return std::max(std::abs(expected) * std::ldexp(1.0, -11), std::ldexp(1.0, -25));
    case DataType::kINT8: return 0.5;
    default: return 0.0; // the arithmetic's own last rounding
    }
}

void expect_near(std::vector<double> const& found, Reference const& reference, DataType type, std::string const& what)
{
    expect_equal(found.size(), reference.value.size(), what + ": elements");
    for (std::size_t i = 0; i < found.size() && i < reference.value.size(); ++i)
    {
        double const expected
            = type == DataType::kINT8 ? std::clamp(reference.value[i], -128.0, 127.0) : reference.value[i];
        if (!(std::abs(found[i] - expected) <= rounding(type, expected) + reference.error[i]))
        {
            expect(false,
                what + ": element " + std::to_string(i) + " expected " + std::to_string(expected) + ", found "
                    + std::to_string(found[i]));
            return;
        }
    }
    expect(true, what);
}

// Enqueues one shape on the stream and gives the output, in the order N, C, H, W.
std::vector<double> run(IPluginV3& plugin, std::vector<PluginTensorDesc> const& tensors,
    std::vector<std::vector<double>> const& values, Stream const& stream)
{
    auto const nb_inputs = static_cast<std::int32_t>(values.size());
    PluginTensorDesc const& output = tensors.back();
    require(static_cast<cudaError_t>(runtime(plugin).onShapeChange(tensors.data(), nb_inputs, &output, 1)),
        "onShapeChange");
    std::vector<DynamicPluginTensorDesc> bounds;
    std::transform(tensors.begin(), tensors.end(), std::back_inserter(bounds), fixed);
    Buffer const workspace{build(plugin).getWorkspaceSize(bounds.data(), nb_inputs, &bounds.back(), 1)};
    std::vector<Buffer> buffers;
    std::vector<void const*> inputs;
    for (std::size_t i = 0; i < values.size(); ++i)
    {
        inputs.push_back(buffers.emplace_back(encode(values[i], tensors[i])).get());
    }
    Buffer const result{bytes(output)};
    void* const outputs[]{result.get()};
    require(static_cast<cudaError_t>(runtime(plugin).enqueue(
                tensors.data(), &output, inputs.data(), outputs, workspace.get(), stream.get())),
        "enqueue");
    stream.wait();
    workspace.download();
    return decode(result.download(), output);
}

// The inputs' dimensions, then the output's.
std::vector<Dims> shapes(std::string const& plugin, std::vector<std::int64_t> const& map)
{
    if (plugin == "SpatialGate")
    {
        return {dims(map), dims({1, 2, kSide, kSide}), dims(map)};
    }
    if (plugin == "ChannelGate")
    {
        return {dims(map), dims({kHidden, map[1], 1, 1}), dims({map[1], kHidden, 1, 1}), dims(map)};
    }
    return {dims(map), dims(map), dims({map[0], 2 * map[1], map[2], map[3]})};
}

Reference reference_of(std::string const& plugin, Dims const& map, std::vector<std::vector<double>> const& values)
{
    if (plugin == "SpatialGate")
    {
        return spatial_gate_reference(map, values[0], kSide, values[1]);
    }
    if (plugin == "ChannelGate")
    {
        return channel_gate_reference(map, values[0], kHidden, values[1], values[2]);
    }
    bool const quantized = plugin == "QuantizedMutualGate";
    return mutual_gate_reference(map, values[0], values[1], quantized ? static_cast<double>(kScaleG) : 1.0,
        quantized ? static_cast<double>(kScaleL) : 1.0);
}

void kernels_come_near_float64(Library const& library, Stream const& stream)
{
    std::mt19937 generator{20};
    for (Case const& test : kCases)
    {
        std::string const name = test.plugin;
        bool const weights = name == "SpatialGate" || name == "ChannelGate";
        PluginPtr const plugin = library.plugin(name, fields_for(name), TensorRTPhase::kRUNTIME);
        PluginPtr const attached{runtime(*plugin).attachToContext(nullptr)};
        for (auto const& map : test.maps)
        {
            std::vector<Dims> const extents = shapes(name, map);
            std::vector<PluginTensorDesc> tensors;
            std::vector<std::vector<double>> values;
            for (std::size_t i = 0; i < extents.size(); ++i)
            {
                tensors.push_back(tensor(extents[i], test.tensors[i].type, test.tensors[i].format));
                if (i + 1 < extents.size())
                {
                    values.push_back(random_values(tensors[i], weights && i > 0 ? 0.15 : 3.0, generator));
                }
            }
            auto const found = run(*attached, tensors, values, stream);
            auto const reference = reference_of(name, extents[0], values);
            std::string what = name + " " + word(test.tensors);
            for (std::int64_t const extent : map)
            {
                what += " " + std::to_string(extent);
            }
            expect_near(found, reference, tensors.back().type, what);
        }
    }
}

void ties_go_to_even_and_the_rest_saturates(Library const& library, Stream const& stream)
{
    static float const scale = 0.25F;
    PluginPtr const plugin = library.plugin("QuantizedMutualGate", scales(&scale, &scale), TensorRTPhase::kRUNTIME);
    std::vector<double> g;
    for (int i = -140; i < 140; ++i)
    {
        g.push_back((i + 0.5) * static_cast<double>(scale));
    }
    // A gate of 1 in FP32: each quotient of the first half is a tie.
    std::vector<double> const l(g.size(), 40.0);
    auto const width = static_cast<std::int64_t>(g.size());
    PluginTensorDesc const map = tensor(dims({1, 1, 1, width}), DataType::kFLOAT);
    auto const found = run(*plugin, {map, map, tensor(dims({1, 2, 1, width}), DataType::kINT8)}, {g, l}, stream);
    for (std::size_t i = 0; i < g.size(); ++i)
    {
        double const quotient = g[i] / static_cast<double>(scale);
        expect_equal(found[i], std::clamp(std::nearbyint(quotient), -128.0, 127.0),
            "int8 of " + std::to_string(quotient));
    }
}

void without_a_device_enqueue_fails_with_one_line(Library& library)
{
    std::vector<PluginTensorDesc> const tensors{tensor(dims({1, 8, 5, 7}), DataType::kFLOAT),
        tensor(dims({1, 8, 5, 7}), DataType::kFLOAT), tensor(dims({1, 16, 5, 7}), DataType::kFLOAT)};
    void const* const inputs[]{nullptr, nullptr};
    void* const outputs[]{nullptr};
    PluginPtr const plugin = library.plugin("MutualGate", {}, TensorRTPhase::kRUNTIME);
    std::int32_t const status
        = runtime(*plugin).enqueue(tensors.data(), &tensors[2], inputs, outputs, nullptr, nullptr);
    expect(status != 0, "enqueue without a device fails");
    expect_equal(library.log().take().size(), std::size_t{1}, "lines in the log of an enqueue without a device");
}

} // namespace

} // namespace irforge::test

int main(int argc, char** argv)
{
    using namespace irforge::test;

    if (argc != 2)
    {
        std::fprintf(stderr, "usage: %s LIBRARY | --device\n", argv[0]);
        return 2;
    }
    int devices = 0;
    cudaError_t const status = cudaGetDeviceCount(&devices);
    bool const device = status == cudaSuccess && devices > 0;
    if (std::string{argv[1]} == "--device")
    {
        return device ? 0 : kSkipped;
    }
    try
    {
        Library library{argv[1]};
        if (device)
        {
            Stream const stream;
            kernels_come_near_float64(library, stream);
            ties_go_to_even_and_the_rest_saturates(library, stream);
            expect_equal(library.log().take().size(), std::size_t{0}, "lines in the log");
            return exit_code();
        }
        without_a_device_enqueue_fails_with_one_line(library);
    }
    catch (std::exception const& error)
    {
        expect(false, error.what());
    }
    int const code = exit_code();
    if (!device && code == 0)
    {
        std::printf("SKIP: no CUDA device (%s)\n", cudaGetErrorString(status));
        return kSkipped;
    }
    return code;
}
