// The entry points of a library with one fault, which the host test must notice.
#include "spoil.h"

#include <channel_gate.h>
#include <log.h>
#include <mutual_gate.h>
#include <spatial_gate.h>

#include <NvInferRuntime.h>

#include <cstdint>

namespace
{

irforge::test::Creators spoilt()
{
    static irforge::tensorrt::Creator mutual_gate = irforge::tensorrt::mutual_gate_creator();
    static irforge::tensorrt::Creator quantized_mutual_gate = irforge::tensorrt::quantized_mutual_gate_creator();
    static irforge::tensorrt::Creator spatial_gate = irforge::tensorrt::spatial_gate_creator();
    static irforge::tensorrt::Creator channel_gate = irforge::tensorrt::channel_gate_creator();
    irforge::test::Creators creators{&mutual_gate, &quantized_mutual_gate, &spatial_gate, &channel_gate};
    irforge::test::spoil(creators);
    return creators;
}

} // namespace

extern "C"
{

__attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count)
{
    static irforge::test::Creators const creators = spoilt();
    count = static_cast<std::int32_t>(creators.size());
    return creators.data();
}

__attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    irforge::tensorrt::set_logger_finder(finder);
}

__attribute__((visibility("default"))) int irforge_tensorrt_major()
{
    return NV_TENSORRT_MAJOR;
}

} // extern "C"
