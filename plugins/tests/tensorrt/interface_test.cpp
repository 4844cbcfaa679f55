// What a network sees of a plugin: names, capabilities, output types and shapes.
#include "check.h"
#include "expressions.h"
#include "host.h"
#include "tests.h"
#include "words.h"

#include <string>
#include <vector>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

struct CreatorRow
{
    char const* name;
    std::vector<std::string> float_fields;
};

std::vector<CreatorRow> const kCreators{
    {"MutualGate", {}},
    {"QuantizedMutualGate", {"scale_g", "scale_l"}},
    {"SpatialGate", {}},
    {"ChannelGate", {}},
};

struct TypeRow
{
    char const* plugin;
    DataType inputs;
    DataType output;
};

std::vector<TypeRow> const kTypes{
    {"MutualGate", DataType::kFLOAT, DataType::kFLOAT},
    {"MutualGate", DataType::kHALF, DataType::kHALF},
    {"QuantizedMutualGate", DataType::kFLOAT, DataType::kINT8},
    {"QuantizedMutualGate", DataType::kHALF, DataType::kINT8},
    {"SpatialGate", DataType::kFLOAT, DataType::kFLOAT},
    {"SpatialGate", DataType::kHALF, DataType::kHALF},
    {"ChannelGate", DataType::kFLOAT, DataType::kFLOAT},
    {"ChannelGate", DataType::kHALF, DataType::kHALF},
};

struct ShapeRow
{
    char const* plugin;
    std::vector<std::vector<std::string>> inputs;
    std::vector<std::string> output; // "C+C" is twice the extent C
};

std::vector<ShapeRow> const kShapes{
    {"MutualGate", {{"2", "7", "5", "3"}, {"2", "7", "5", "3"}}, {"2", "14", "5", "3"}},
    {"MutualGate", {{"N", "1024", "H", "W"}, {"N", "1024", "H", "W"}}, {"N", "2048", "H", "W"}},
    {"MutualGate", {{"N", "C", "H", "W"}, {"N", "C", "H", "W"}}, {"N", "C+C", "H", "W"}},
    {"QuantizedMutualGate", {{"1", "32", "50", "76"}, {"1", "32", "50", "76"}}, {"1", "64", "50", "76"}},
    {"QuantizedMutualGate", {{"N", "1024", "H", "W"}, {"N", "1024", "H", "W"}}, {"N", "2048", "H", "W"}},
    {"SpatialGate", {{"2", "7", "5", "3"}, {"1", "2", "7", "7"}}, {"2", "7", "5", "3"}},
    {"SpatialGate", {{"N", "16", "H", "W"}, {"1", "2", "7", "7"}}, {"N", "16", "H", "W"}},
    {"ChannelGate", {{"2", "7", "5", "3"}, {"4", "7", "1", "1"}, {"7", "4", "1", "1"}}, {"2", "7", "5", "3"}},
    {"ChannelGate", {{"N", "16", "H", "W"}, {"1", "16", "1", "1"}, {"16", "1", "1", "1"}}, {"N", "16", "H", "W"}},
};

std::int64_t value_of(std::string const& word, Extents const& extents)
{
    auto const plus = word.find('+');
    if (plus != std::string::npos)
    {
        return value_of(word.substr(0, plus), extents) + value_of(word.substr(plus + 1), extents);
    }
    auto const bound = extents.find(word);
    return bound == extents.end() ? std::stoll(word) : bound->second;
}

} // namespace

void the_library_says_which_tensorrt_it_is_for(Library& library)
{
    expect_equal(library.major(), NV_TENSORRT_MAJOR, "major version of TensorRT");
}

void every_creator_is_listed(Library& library)
{
    auto const creators = library.creators();
    expect_equal(creators.size(), kCreators.size(), "number of creators");
    for (IPluginCreatorInterface const* const creator : creators)
    {
        expect_equal(std::string{creator->getInterfaceInfo().kind}, "PLUGIN CREATOR_V3ONE", "kind of creator");
    }
    for (CreatorRow const& row : kCreators)
    {
        std::string const name = row.name;
        IPluginCreatorV3One* const creator = library.find_creator(name);
        expect(creator != nullptr, name + " has a creator");
        if (creator == nullptr)
        {
            continue;
        }
        expect_equal(std::string{creator->getPluginVersion()}, "1", name + " creator's version");
        expect_equal(std::string{creator->getPluginNamespace()}, "", name + " creator's namespace");
        PluginFieldCollection const* const declared = creator->getFieldNames();
        expect(declared != nullptr, name + " declares its fields");
        expect_equal(
            declared->nbFields, static_cast<std::int32_t>(row.float_fields.size()), name + " number of fields");
        for (std::int32_t i = 0; i < declared->nbFields; ++i)
        {
            PluginField const& field = declared->fields[i];
            expect_equal(
                std::string{field.name}, row.float_fields.at(static_cast<std::size_t>(i)), name + " field's name");
            expect(field.type == PluginFieldType::kFLOAT32, name + " field's type");
            expect_equal(field.length, 1, name + " field's length");
        }
    }
}

void plugins_have_every_capability_in_both_phases(Library& library)
{
    for (Node const& node : nodes())
    {
        for (TensorRTPhase const phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME})
        {
            PluginPtr const plugin = library.plugin(node.name, node.fields, phase);
            std::string const name = node.name;
            expect_equal(std::string{plugin->getInterfaceInfo().kind}, "PLUGIN", name + " kind");
            expect_equal(std::string{core(*plugin).getInterfaceInfo().kind}, "PLUGIN_V3ONE_CORE", name + " core");
            expect_equal(std::string{build(*plugin).getInterfaceInfo().kind}, "PLUGIN_V3ONE_BUILD", name + " build");
            expect_equal(
                std::string{runtime(*plugin).getInterfaceInfo().kind}, "PLUGIN_V3ONE_RUNTIME", name + " runtime");
            expect(plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(7)) == nullptr,
                name + " has no capability beyond the three");
            expect_equal(std::string{core(*plugin).getPluginName()}, name, "plugin's name");
            expect_equal(std::string{core(*plugin).getPluginVersion()}, "1", name + " plugin's version");
            expect_equal(std::string{core(*plugin).getPluginNamespace()}, "", name + " plugin's namespace");
            expect_equal(build(*plugin).getNbOutputs(), 1, name + " outputs");
            expect_equal(build(*plugin).getNbTactics(), 0, name + " tactics");
            expect_equal(runtime(*plugin).setTactic(0), 0, name + " takes the default tactic");
        }
    }
}

void the_address_of_the_creator_is_no_unknown_field(Library& library)
{
    for (Node const& node : nodes())
    {
        Fields fields = node.fields;
        fields.emplace_back("plugin_version", "1", PluginFieldType::kCHAR, 1);
        fields.emplace_back("plugin_namespace", "", PluginFieldType::kCHAR, 0);
        expect(library.plugin(node.name, fields) != nullptr, std::string{node.name} + " passes over its own address");
    }
}

void output_types_follow_the_inputs(Library& library)
{
    for (TypeRow const& row : kTypes)
    {
        PluginPtr const plugin = library.plugin(row.plugin, fields_of(row.plugin));
        std::int32_t const nb_inputs = inputs_of(row.plugin);
        std::vector<DataType> const inputs(static_cast<std::size_t>(nb_inputs), row.inputs);
        auto output = static_cast<DataType>(-1);
        std::string const promise = std::string{row.plugin} + " of " + word(row.inputs);
        expect_equal(
            build(*plugin).getOutputDataTypes(&output, 1, inputs.data(), nb_inputs), 0, promise + " is accepted");
        expect_equal(word(output), word(row.output), promise + " output type");
    }
}

void output_shapes_are_expressions_of_the_inputs(Library& library)
{
    std::vector<Extents> const profiles{
        {{"N", 1}, {"C", 3}, {"H", 5}, {"W", 7}}, {{"N", 4}, {"C", 1024}, {"H", 50}, {"W", 76}}};
    for (ShapeRow const& row : kShapes)
    {
        PluginPtr const plugin = library.plugin(row.plugin, fields_of(row.plugin));
        Expressions expressions;
        std::vector<DimsExprs> inputs;
        for (auto const& input : row.inputs)
        {
            inputs.push_back(expressions.parse(input));
        }
        auto const nb_inputs = static_cast<std::int32_t>(inputs.size());
        DimsExprs output{};
        std::string const promise = std::string{row.plugin} + " output shape";
        expect_equal(
            build(*plugin).getOutputShapes(inputs.data(), nb_inputs, nullptr, 0, &output, 1, expressions), 0, promise);
        expect_equal(output.nbDims, static_cast<std::int32_t>(row.output.size()), promise + " rank");
        for (std::int32_t i = 0; i < output.nbDims; ++i)
        {
            std::string const& expected = row.output.at(static_cast<std::size_t>(i));
            std::string const axis = promise + " axis " + std::to_string(i) + " = " + expected;
            bool const constant = expected.find_first_not_of("0123456789") == std::string::npos;
            expect_equal(output.d[i]->isConstant(), constant, axis + " known when building");
            for (Extents const& extents : profiles)
            {
                expect_equal(Expressions::evaluate(*output.d[i], extents), value_of(expected, extents), axis);
            }
        }
    }
}

} // namespace irforge::test
