// The two entry points by which IPluginRegistry::loadLibrary and trtexec --dynamicPlugins take this library in, and one
// to ask before that.
#include "channel_gate.h"
#include "log.h"
#include "mutual_gate.h"
#include "spatial_gate.h"

#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <cstdint>
#include <iterator>

extern "C"
{

__attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count)
{
    static irforge::tensorrt::Creator mutual_gate = irforge::tensorrt::mutual_gate_creator();
    static irforge::tensorrt::Creator quantized_mutual_gate = irforge::tensorrt::quantized_mutual_gate_creator();
    static irforge::tensorrt::Creator spatial_gate = irforge::tensorrt::spatial_gate_creator();
    static irforge::tensorrt::Creator channel_gate = irforge::tensorrt::channel_gate_creator();
    static nvinfer1::IPluginCreatorInterface* const creators[]{
        &mutual_gate, &quantized_mutual_gate, &spatial_gate, &channel_gate};
    count = static_cast<std::int32_t>(std::size(creators));
    return creators;
}

__attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    irforge::tensorrt::set_logger_finder(finder);
}

// The major version of TensorRT that this library was built for: in another, interfaces have other vtables.
__attribute__((visibility("default"))) int irforge_tensorrt_major()
{
    return NV_TENSORRT_MAJOR;
}

} // extern "C"
