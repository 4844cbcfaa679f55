#include "creator.h"

#include "log.h"

#include <utility>

namespace irforge::tensorrt
{

using namespace nvinfer1;

Creator::Creator(char const* name, std::vector<PluginField> declared, MakePlugin make)
    : name_{name}
    , declared_{std::move(declared)}
    , declared_collection_{static_cast<std::int32_t>(declared_.size()), declared_.data()}
    , make_{make}
{
}

IPluginV3* Creator::createPlugin(
    char const* node, PluginFieldCollection const* given, TensorRTPhase /*phase*/) noexcept
{
    return guarded<IPluginV3*>(
        {name_, node}, nullptr, [&] { return make_(Fields{declared_, given}).release(); });
}

PluginFieldCollection const* Creator::getFieldNames() noexcept
{
    return &declared_collection_;
}

char const* Creator::getPluginName() const noexcept
{
    return name_;
}

char const* Creator::getPluginVersion() const noexcept
{
    return "1";
}

char const* Creator::getPluginNamespace() const noexcept
{
    return "";
}

} // namespace irforge::tensorrt
