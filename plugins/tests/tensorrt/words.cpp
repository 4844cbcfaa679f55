#include "words.h"

#include "check.h"
#include "expressions.h"
#include "host.h"

#include <array>
#include <cstring>
#include <sstream>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

using Tensors = std::vector<DynamicPluginTensorDesc>;

// Tries every encoding of the tensor at `position`, those before it being settled in `tensors`.
void walk(IPluginV3OneBuild& plugin, Tensors const& tensors, std::size_t position, Combination& combination,
    std::vector<Combination>& found)
{
    if (position == tensors.size())
    {
        found.push_back(combination);
        return;
    }
    for (std::int32_t type = 0; type < EnumMax<DataType>(); ++type)
    {
        for (std::int32_t format = 0; format < EnumMax<TensorFormat>(); ++format)
        {
            Tensors asked = tensors;
            combination[position] = {static_cast<DataType>(type), static_cast<TensorFormat>(format)};
            asked[position].desc.type = combination[position].type;
            asked[position].desc.format = combination[position].format;
            auto const inputs = static_cast<std::int32_t>(tensors.size()) - 1;
            if (plugin.supportsFormatCombination(static_cast<std::int32_t>(position), asked.data(), inputs, 1))
            {
                walk(plugin, asked, position + 1, combination, found);
            }
        }
    }
}

std::string serialized(IPluginV3& plugin)
{
    std::ostringstream text;
    PluginFieldCollection const* const fields = runtime(plugin).getFieldsToSerialize();
    for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i)
    {
        PluginField const& field = fields->fields[i];
        float value = 0.0F;
        std::memcpy(&value, field.data, sizeof value);
        text << " " << field.name << " type " << static_cast<int>(field.type) << " length " << field.length << " "
             << std::hexfloat << value;
    }
    return text.str();
}

} // namespace

std::string word(DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT: return "kFLOAT";
    case DataType::kHALF: return "kHALF";
    case DataType::kINT8: return "kINT8";
    default: return "type " + std::to_string(static_cast<int>(type));
    }
}

std::string word(TensorFormat format)
{
    switch (format)
    {
    case TensorFormat::kLINEAR: return "kLINEAR";
    case TensorFormat::kHWC8: return "kHWC8";
    case TensorFormat::kCHW32: return "kCHW32";
    default: return "format " + std::to_string(static_cast<int>(format));
    }
}

std::string join(std::set<std::string> const& words)
{
    std::string list;
    for (std::string const& word : words)
    {
        list += (list.empty() ? "" : " | ") + word;
    }
    return list;
}

std::string word(Combination const& combination)
{
    std::string text;
    for (Encoding const& encoding : combination)
    {
        text += (text.empty() ? "" : " ") + word(encoding.type) + ":" + word(encoding.format);
    }
    return text;
}

std::set<std::string> words(std::vector<Combination> const& combinations)
{
    std::set<std::string> all;
    for (Combination const& combination : combinations)
    {
        all.insert(word(combination));
    }
    return all;
}

std::vector<Combination> accepted(IPluginV3& plugin, std::vector<Dims> const& dims)
{
    // What lies at the tensors not asked about yet must not matter: once nonsense, once a tempting choice.
    std::array<Encoding, 2> const unset{
        Encoding{static_cast<DataType>(-1), static_cast<TensorFormat>(-1)},
        Encoding{DataType::kHALF, TensorFormat::kHWC8}};
    std::array<std::vector<Combination>, 2> found;
    for (std::size_t i = 0; i < unset.size(); ++i)
    {
        Tensors tensors;
        for (Dims const& extents : dims)
        {
            tensors.push_back(fixed(tensor(extents, unset[i].type, unset[i].format)));
        }
        Combination combination(tensors.size());
        walk(build(plugin), tensors, 0, combination, found[i]);
    }
    expect_equal(join(words(found[0])), join(words(found[1])), "tensors not set yet have no say in the formats");
    return found[0];
}

std::string description(IPluginV3& plugin)
{
    std::int32_t const nb_inputs = inputs_of(core(plugin).getPluginName());
    std::ostringstream text;
    text << core(plugin).getPluginName() << " version " << core(plugin).getPluginVersion() << " namespace '"
         << core(plugin).getPluginNamespace() << "'";
    IPluginV3OneBuild& builder = build(plugin);
    text << "\noutputs " << builder.getNbOutputs() << ", tactics " << builder.getNbTactics() << ", timing "
         << builder.getTimingCacheID() << ", metadata " << builder.getMetadataString();
    for (DataType const type : {DataType::kFLOAT, DataType::kHALF})
    {
        std::vector<DataType> const inputs(static_cast<std::size_t>(nb_inputs), type);
        DataType output{};
        text << "\n" << word(type) << " -> ";
        text << (builder.getOutputDataTypes(&output, 1, inputs.data(), nb_inputs) == 0 ? word(output) : "refused");
    }
    Expressions expressions;
    std::vector<DimsExprs> const inputs(
        static_cast<std::size_t>(nb_inputs), expressions.parse({"N", "32", "H", "W"}));
    DimsExprs output{};
    if (builder.getOutputShapes(inputs.data(), nb_inputs, nullptr, 0, &output, 1, expressions) == 0)
    {
        text << "\nshape";
        for (std::int32_t i = 0; i < output.nbDims; ++i)
        {
            text << " " << Expressions::evaluate(*output.d[i], {{"N", 2}, {"H", 5}, {"W", 7}});
        }
    }
    std::vector<Dims> const maps(static_cast<std::size_t>(nb_inputs) + 1, dims({2, 32, 5, 7}));
    text << "\n" << join(words(accepted(plugin, maps))) << "\nstate" << serialized(plugin);
    return text.str();
}

} // namespace irforge::test
