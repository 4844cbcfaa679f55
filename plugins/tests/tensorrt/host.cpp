#include "host.h"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

template <typename Function>
Function* entry_point(void* library, char const* name)
{
    void* const symbol = dlsym(library, name);
    if (symbol == nullptr)
    {
        throw std::runtime_error(dlerror());
    }
    return reinterpret_cast<Function*>(symbol);
}

template <typename Capability>
Capability& capability(IPluginV3& plugin, PluginCapabilityType type)
{
    IPluginCapability* const found = plugin.getCapabilityInterface(type);
    if (found == nullptr)
    {
        throw std::runtime_error("plugin without capability " + std::to_string(static_cast<int>(type)));
    }
    return static_cast<Capability&>(*found);
}

Node const& node_of(std::string const& name)
{
    auto const found
        = std::find_if(nodes().begin(), nodes().end(), [&](Node const& node) { return node.name == name; });
    if (found == nodes().end())
    {
        throw std::out_of_range("no node of the name " + name);
    }
    return *found;
}

} // namespace

void Log::log(Severity /*severity*/, char const* line) noexcept
{
    lines_.emplace_back(line);
}

ILogger* Log::findLogger()
{
    return this;
}

std::vector<std::string> Log::take()
{
    return std::exchange(lines_, {});
}

Library::Library(char const* path)
    : handle_{dlopen(path, RTLD_NOW | RTLD_LOCAL)}
{
    if (handle_ == nullptr)
    {
        throw std::runtime_error(dlerror());
    }
    find_loggers_with(&log_);
}

Library::~Library()
{
    dlclose(handle_);
}

std::vector<IPluginCreatorInterface*> Library::creators() const
{
    std::int32_t count = 0;
    auto* const first = entry_point<IPluginCreatorInterface* const*(std::int32_t&)>(handle_, "getCreators")(count);
    return {first, first + count};
}

IPluginCreatorV3One* Library::find_creator(std::string const& name) const
{
    for (IPluginCreatorInterface* const creator : creators())
    {
        if (std::string{creator->getInterfaceInfo().kind} == "PLUGIN CREATOR_V3ONE")
        {
            auto* const found = static_cast<IPluginCreatorV3One*>(creator);
            if (found->getPluginName() == name)
            {
                return found;
            }
        }
    }
    return nullptr;
}

IPluginCreatorV3One& Library::creator(std::string const& name) const
{
    IPluginCreatorV3One* const found = find_creator(name);
    if (found == nullptr)
    {
        throw std::runtime_error("no creator named " + name);
    }
    return *found;
}

PluginPtr Library::plugin(std::string const& name, Fields const& fields, TensorRTPhase phase) const
{
    auto const given = collection(fields);
    PluginPtr plugin{creator(name).createPlugin("node", &given, phase)};
    if (plugin == nullptr)
    {
        throw std::runtime_error("creator " + name + " gave no plugin");
    }
    return plugin;
}

int Library::major() const
{
    return entry_point<int()>(handle_, "irforge_tensorrt_major")();
}

void Library::find_loggers_with(ILoggerFinder* finder) const
{
    entry_point<void(ILoggerFinder*)>(handle_, "setLoggerFinder")(finder);
}

Log& Library::log()
{
    return log_;
}

IPluginV3OneCore& core(IPluginV3& plugin)
{
    return capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
}

IPluginV3OneBuild& build(IPluginV3& plugin)
{
    return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}

IPluginV3OneRuntime& runtime(IPluginV3& plugin)
{
    return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

PluginFieldCollection collection(Fields const& fields)
{
    return {static_cast<std::int32_t>(fields.size()), fields.data()};
}

Dims dims(std::vector<std::int64_t> const& extents)
{
    Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(extents.size());
    std::copy(extents.begin(), extents.end(), dims.d);
    return dims;
}

PluginTensorDesc tensor(Dims const& dims, DataType type, TensorFormat format)
{
    return {dims, type, format, -1.0F};
}

DynamicPluginTensorDesc fixed(PluginTensorDesc const& tensor)
{
    return {tensor, tensor.dims, tensor.dims, tensor.dims};
}

Fields scales(float const* g, float const* l)
{
    return {{"scale_g", g, PluginFieldType::kFLOAT32, 1}, {"scale_l", l, PluginFieldType::kFLOAT32, 1}};
}

std::vector<Node> const& nodes()
{
    static float const scale_g = 0.03125F;
    static float const scale_l = 1.5e-7F;
    static std::vector<Node> const all{
        {"MutualGate", 2, {}}, {"QuantizedMutualGate", 2, scales(&scale_g, &scale_l)}, {"SpatialGate", 2, {}},
        {"ChannelGate", 3, {}}};
    return all;
}

std::int32_t inputs_of(std::string const& name)
{
    return node_of(name).inputs;
}

Fields fields_of(std::string const& name)
{
    return node_of(name).fields;
}

} // namespace irforge::test
