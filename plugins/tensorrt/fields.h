// The attributes of a node, as a creator gets them.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

namespace irforge::tensorrt
{

// The declaration of an attribute that holds one float.
nvinfer1::PluginField float_field(char const* name, float const* value = nullptr);

// "name=value" of a float_field that has a value.
std::string text(nvinfer1::PluginField const& field);

// A view of the fields given to createPlugin, held against those declared; valid as long as both are.
class Fields
{
public:
    // Throws std::invalid_argument where a field is unknown, given twice, without data, or of another type or length
    // than declared. `plugin_version` and `plugin_namespace` address the creator and are passed over.
    Fields(std::vector<nvinfer1::PluginField> const& declared, nvinfer1::PluginFieldCollection const* given);

    // Throws std::invalid_argument unless `name` was given, is finite and is above zero.
    float positive(char const* name) const;

private:
    nvinfer1::PluginField const* find(char const* name) const;

    std::vector<nvinfer1::PluginField> given_;
};

} // namespace irforge::tensorrt
