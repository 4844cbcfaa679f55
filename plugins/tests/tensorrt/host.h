// The host's side of the library: what TensorRT does with it, done by hand.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace irforge::test
{

// Keeps the lines that plugins log.
class Log final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder
{
public:
    void log(Severity severity, char const* line) noexcept override;
    nvinfer1::ILogger* findLogger() override;

    // The lines since the last call.
    std::vector<std::string> take();

private:
    std::vector<std::string> lines_;
};

using PluginPtr = std::unique_ptr<nvinfer1::IPluginV3>;
using Fields = std::vector<nvinfer1::PluginField>;

class Library
{
public:
    // Throws std::runtime_error where it cannot be loaded or lacks an entry point.
    explicit Library(char const* path);
    ~Library();
    Library(Library const&) = delete;
    Library& operator=(Library const&) = delete;

    std::vector<nvinfer1::IPluginCreatorInterface*> creators() const;
    // nullptr where there is no V3 creator of that name.
    nvinfer1::IPluginCreatorV3One* find_creator(std::string const& name) const;
    // These two throw std::runtime_error where there is no such creator or it gives no plugin.
    nvinfer1::IPluginCreatorV3One& creator(std::string const& name) const;
    PluginPtr plugin(std::string const& name, Fields const& fields,
        nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD) const;

    // The major version of TensorRT that the library says it was built for.
    int major() const;
    void find_loggers_with(nvinfer1::ILoggerFinder* finder) const;
    Log& log();

private:
    Log log_;
    void* handle_;
};

nvinfer1::IPluginV3OneCore& core(nvinfer1::IPluginV3& plugin);
nvinfer1::IPluginV3OneBuild& build(nvinfer1::IPluginV3& plugin);
nvinfer1::IPluginV3OneRuntime& runtime(nvinfer1::IPluginV3& plugin);

nvinfer1::PluginFieldCollection collection(Fields const& fields);
nvinfer1::Dims dims(std::vector<std::int64_t> const& extents);
nvinfer1::PluginTensorDesc tensor(nvinfer1::Dims const& dims, nvinfer1::DataType type,
    nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR);
// `tensor` as a builder shows it, its extents being all that a profile allows.
nvinfer1::DynamicPluginTensorDesc fixed(nvinfer1::PluginTensorDesc const& tensor);

// The creators' names with the number of inputs and the fields of a node that each accepts.
struct Node
{
    char const* name;
    std::int32_t inputs;
    Fields fields;
};

std::vector<Node> const& nodes();
// These two throw std::out_of_range for any other name.
std::int32_t inputs_of(std::string const& name);
Fields fields_of(std::string const& name);
Fields scales(float const* g, float const* l);

} // namespace irforge::test
