// What the builder asks before it chooses: formats, configuration, workspace.
#include "check.h"
#include "host.h"
#include "tests.h"
#include "words.h"

#include <set>
#include <string>
#include <vector>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

std::string const kFloatLinear3 = "kFLOAT:kLINEAR kFLOAT:kLINEAR kFLOAT:kLINEAR";
std::string const kHalfLinear3 = "kHALF:kLINEAR kHALF:kLINEAR kHALF:kLINEAR";
std::string const kHalfHwc8 = "kHALF:kHWC8 kHALF:kHWC8 kHALF:kHWC8";
std::string const kFloatToInt8 = "kFLOAT:kLINEAR kFLOAT:kLINEAR kINT8:kLINEAR";
std::string const kHalfToInt8 = "kHALF:kLINEAR kHALF:kLINEAR kINT8:kLINEAR";
std::string const kHwc8ToChw32 = "kHALF:kHWC8 kHALF:kHWC8 kINT8:kCHW32";
std::string const kHwc8LinearWeight = "kHALF:kHWC8 kHALF:kLINEAR kHALF:kHWC8";
std::string const kFloatLinear4 = "kFLOAT:kLINEAR kFLOAT:kLINEAR kFLOAT:kLINEAR kFLOAT:kLINEAR";
std::string const kHalfLinear4 = "kHALF:kLINEAR kHALF:kLINEAR kHALF:kLINEAR kHALF:kLINEAR";
std::string const kHwc8LinearWeights = "kHALF:kHWC8 kHALF:kLINEAR kHALF:kLINEAR kHALF:kHWC8";

struct FormatRow
{
    char const* plugin;
    std::int64_t channels; // -1: open until run time
    std::set<std::string> accepted;
};

std::vector<FormatRow> const kFormats{
    {"MutualGate", 32, {kFloatLinear3, kHalfLinear3, kHalfHwc8}},
    {"MutualGate", 8, {kFloatLinear3, kHalfLinear3, kHalfHwc8}},
    {"MutualGate", 12, {kFloatLinear3, kHalfLinear3}},
    {"MutualGate", 1, {kFloatLinear3, kHalfLinear3}},
    {"MutualGate", -1, {kFloatLinear3, kHalfLinear3}},
    {"QuantizedMutualGate", 64, {kFloatToInt8, kHalfToInt8, kHwc8ToChw32}},
    {"QuantizedMutualGate", 32, {kFloatToInt8, kHalfToInt8, kHwc8ToChw32}},
    {"QuantizedMutualGate", 16, {kFloatToInt8, kHalfToInt8}},
    {"QuantizedMutualGate", 8, {kFloatToInt8, kHalfToInt8}},
    {"QuantizedMutualGate", 7, {kFloatToInt8, kHalfToInt8}},
    {"QuantizedMutualGate", -1, {kFloatToInt8, kHalfToInt8}},
    {"SpatialGate", 64, {kFloatLinear3, kHalfLinear3, kHwc8LinearWeight}},
    {"SpatialGate", 8, {kFloatLinear3, kHalfLinear3, kHwc8LinearWeight}},
    {"SpatialGate", 12, {kFloatLinear3, kHalfLinear3}},
    {"SpatialGate", -1, {kFloatLinear3, kHalfLinear3}},
    {"ChannelGate", 64, {kFloatLinear4, kHalfLinear4, kHwc8LinearWeights}},
    {"ChannelGate", 8, {kFloatLinear4, kHalfLinear4, kHwc8LinearWeights}},
    {"ChannelGate", 12, {kFloatLinear4, kHalfLinear4}},
    {"ChannelGate", -1, {kFloatLinear4, kHalfLinear4}},
};

struct ConfigurationRow
{
    char const* plugin;
    DataType output;
    bool workspace;
};

std::vector<ConfigurationRow> const kConfigurations{
    {"MutualGate", DataType::kFLOAT, false},
    {"QuantizedMutualGate", DataType::kINT8, false},
    {"SpatialGate", DataType::kFLOAT, true},
    {"ChannelGate", DataType::kFLOAT, true},
};

// The dimensions of the inputs and the output for a map of the given extents.
std::vector<Dims> shapes(std::string const& plugin, std::vector<std::int64_t> const& map)
{
    std::int64_t const channels = map[1];
    if (plugin == "SpatialGate")
    {
        return {dims(map), dims({1, 2, 7, 7}), dims(map)};
    }
    if (plugin == "ChannelGate")
    {
        return {dims(map), dims({2, channels, 1, 1}), dims({channels, 2, 1, 1}), dims(map)};
    }
    return {dims(map), dims(map), dims({map[0], channels == -1 ? -1 : 2 * channels, map[2], map[3]})};
}

} // namespace

void formats_are_those_that_the_kernels_take(Library& library)
{
    for (FormatRow const& row : kFormats)
    {
        std::string const promise = std::string{row.plugin} + " with " + std::to_string(row.channels) + " channels";
        PluginPtr const plugin = library.plugin(row.plugin, fields_of(row.plugin));
        auto const found = accepted(*plugin, shapes(row.plugin, {-1, row.channels, -1, -1}));
        expect_equal(join(words(found)), join(row.accepted), promise + " formats");
        auto const now = shapes(row.plugin, {2, row.channels == -1 ? 7 : row.channels, 5, 3});
        for (Combination const& combination : found)
        {
            std::vector<PluginTensorDesc> tensors;
            for (std::size_t i = 0; i < now.size(); ++i)
            {
                tensors.push_back(tensor(now[i], combination[i].type, combination[i].format));
            }
            auto const inputs = static_cast<std::int32_t>(tensors.size()) - 1;
            expect_equal(runtime(*plugin).onShapeChange(tensors.data(), inputs, &tensors.back(), 1), 0,
                promise + " has a kernel for " + word(combination));
        }
    }
}

void a_configured_plugin_takes_every_shape_of_its_profile(Library& library)
{
    for (ConfigurationRow const& row : kConfigurations)
    {
        std::string const name = row.plugin;
        PluginPtr const plugin = library.plugin(name, fields_of(name));
        auto const open = shapes(name, {-1, 32, -1, -1});
        auto const smallest = shapes(name, {1, 32, 1, 1});
        auto const usual = shapes(name, {2, 32, 50, 76});
        auto const largest = shapes(name, {4, 32, 51, 77});
        std::int32_t const inputs = inputs_of(name);
        std::vector<DataType> types(static_cast<std::size_t>(inputs), DataType::kFLOAT);
        types.push_back(row.output);

        std::vector<DynamicPluginTensorDesc> profile;
        for (std::size_t i = 0; i < types.size(); ++i)
        {
            profile.push_back({tensor(open[i], types[i]), smallest[i], largest[i], usual[i]});
        }
        expect_equal(
            build(*plugin).configurePlugin(profile.data(), inputs, &profile.back(), 1), 0, name + " is configured");
        std::size_t const bytes = build(*plugin).getWorkspaceSize(profile.data(), inputs, &profile.back(), 1);
        expect_equal(bytes > 0, row.workspace, name + " needs workspace");

        for (auto const& now : {smallest, usual, largest})
        {
            std::vector<PluginTensorDesc> tensors;
            std::vector<DynamicPluginTensorDesc> bounds;
            for (std::size_t i = 0; i < types.size(); ++i)
            {
                tensors.push_back(tensor(now[i], types[i]));
                bounds.push_back(fixed(tensors.back()));
            }
            expect_equal(runtime(*plugin).onShapeChange(tensors.data(), inputs, &tensors.back(), 1), 0,
                name + " takes a shape");
            expect(build(*plugin).getWorkspaceSize(bounds.data(), inputs, &bounds.back(), 1) <= bytes,
                name + " workspace of the largest shape serves every smaller one");
        }
    }
}

} // namespace irforge::test
