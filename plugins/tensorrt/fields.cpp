#include "fields.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace irforge::tensorrt
{

namespace
{

using nvinfer1::PluginField;
using Named = std::vector<PluginField>;

Named::const_iterator named(Named const& fields, std::string_view name)
{
    return std::find_if(fields.begin(), fields.end(), [name](PluginField const& field) { return field.name == name; });
}

std::string names(Named const& fields)
{
    std::string list;
    for (PluginField const& field : fields)
    {
        list += list.empty() ? "" : ", ";
        list += field.name;
    }
    return list.empty() ? "none" : list;
}

float value_of(PluginField const& field)
{
    // Serialised fields come back from an engine file, where nothing promises alignment.
    float value = 0.0F;
    std::memcpy(&value, field.data, sizeof value);
    return value;
}

std::string text(float value)
{
    std::array<char, 32> digits{};
    std::snprintf(digits.data(), digits.size(), "%.9g", static_cast<double>(value));
    return digits.data();
}

[[noreturn]] void refuse(std::string_view field, std::string const& why)
{
    throw std::invalid_argument("field '" + std::string{field} + "' " + why);
}

} // namespace

PluginField float_field(char const* name, float const* value)
{
    return {name, value, nvinfer1::PluginFieldType::kFLOAT32, 1};
}

std::string text(PluginField const& field)
{
    return std::string{field.name} + "=" + text(value_of(field));
}

Fields::Fields(Named const& declared, nvinfer1::PluginFieldCollection const* given)
{
    std::int32_t const count = given == nullptr ? 0 : given->nbFields;
    for (std::int32_t i = 0; i < count; ++i)
    {
        PluginField const& field = given->fields[i];
        std::string_view const name = field.name == nullptr ? "" : field.name;
        if (name == "plugin_version" || name == "plugin_namespace")
        {
            continue;
        }
        auto const declaration = named(declared, name);
        if (declaration == declared.end())
        {
            refuse(name, "is unknown; known: " + names(declared));
        }
        if (field.type != declaration->type || field.length != declaration->length)
        {
            refuse(name,
                "must have type " + std::to_string(static_cast<int>(declaration->type)) + " and length "
                    + std::to_string(declaration->length) + ", found type "
                    + std::to_string(static_cast<int>(field.type)) + " and length " + std::to_string(field.length));
        }
        if (field.data == nullptr)
        {
            refuse(name, "has no data");
        }
        if (find(field.name) != nullptr)
        {
            refuse(name, "is given twice");
        }
        given_.push_back(field);
    }
}

PluginField const* Fields::find(char const* name) const
{
    auto const found = named(given_, name);
    return found == given_.end() ? nullptr : &*found;
}

float Fields::positive(char const* name) const
{
    PluginField const* const field = find(name);
    if (field == nullptr)
    {
        refuse(name, "is missing");
    }
    float const value = value_of(*field);
    if (!std::isfinite(value) || value <= 0.0F)
    {
        refuse(name, "must be finite and above zero, found " + text(value));
    }
    return value;
}

} // namespace irforge::tensorrt
