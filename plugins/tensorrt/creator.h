// How TensorRT's parser and runtime make a plugin.
#pragma once

#include "fields.h"
#include "plugin.h"

#include <NvInferRuntime.h>

#include <memory>
#include <vector>

namespace irforge::tensorrt
{

using MakePlugin = std::unique_ptr<Plugin> (*)(Fields const& fields);

class Creator : public nvinfer1::IPluginCreatorV3One
{
public:
    Creator(char const* name, std::vector<nvinfer1::PluginField> declared, MakePlugin make);
    Creator(Creator const&) = delete;
    Creator& operator=(Creator const&) = delete;

    nvinfer1::IPluginV3* createPlugin(char const* node, nvinfer1::PluginFieldCollection const* given,
        nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

private:
    char const* name_;
    std::vector<nvinfer1::PluginField> declared_;
    nvinfer1::PluginFieldCollection declared_collection_;
    MakePlugin make_;
};

} // namespace irforge::tensorrt
