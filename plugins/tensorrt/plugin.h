// What every plugin of this library shares: TensorRT's V3 interfaces, answered from a few hooks.
#pragma once

#include "tensors.h"

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace irforge::tensorrt
{

// One choice of encodings that the kernels take: of every input, then of the output.
struct Combination
{
    std::int64_t channel_multiple; // of the first input; above 1 where a format would otherwise pad channels
    std::vector<Encoding> tensors;
};

// A plugin with one output, whose inputs are counted by its combinations. A hook refuses by throwing
// std::invalid_argument with the reason; TensorRT then sees a failure and one line in its log.
class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit Plugin(char const* name);

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept final;
    nvinfer1::IPluginV3* clone() noexcept final;

    char const* getPluginName() const noexcept final;
    char const* getPluginVersion() const noexcept final;
    char const* getPluginNamespace() const noexcept final;

    std::int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t nb_inputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs, std::int32_t nb_outputs) noexcept final;
    std::int32_t getOutputDataTypes(nvinfer1::DataType* output_types, std::int32_t nb_outputs,
        nvinfer1::DataType const* input_types, std::int32_t nb_inputs) const noexcept final;
    std::int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t nb_inputs,
        nvinfer1::DimsExprs const* shape_inputs, std::int32_t nb_shape_inputs, nvinfer1::DimsExprs* outputs,
        std::int32_t nb_outputs, nvinfer1::IExprBuilder& expressions) noexcept final;
    bool supportsFormatCombination(std::int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
        std::int32_t nb_inputs, std::int32_t nb_outputs) noexcept final;
    std::int32_t getNbOutputs() const noexcept final;
    std::size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t nb_inputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs, std::int32_t nb_outputs) const noexcept final;
    char const* getTimingCacheID() noexcept final;
    char const* getMetadataString() noexcept final;

    std::int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, std::int32_t nb_inputs,
        nvinfer1::PluginTensorDesc const* outputs, std::int32_t nb_outputs) noexcept final;
    std::int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept final;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept final;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept final;

protected:
    virtual std::unique_ptr<Plugin> copy() const = 0;
    virtual std::vector<Combination> const& combinations() const = 0;
    // The state, pointing into this object; a creator makes an equal plugin from it.
    virtual std::vector<nvinfer1::PluginField> fields() const;

    virtual nvinfer1::DataType output_type(nvinfer1::DataType input) const;
    virtual nvinfer1::DimsExprs output_shape(
        nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& expressions) const = 0;
    virtual std::size_t workspace_bytes(nvinfer1::DynamicPluginTensorDesc const* inputs) const;

    // Encodings have been checked before these two are asked.
    virtual void check_shapes(
        nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const& output) const = 0;
    virtual cudaError_t launch(nvinfer1::PluginTensorDesc const* input_descs,
        nvinfer1::PluginTensorDesc const& output_desc, void const* const* inputs, void* output, void* workspace,
        cudaStream_t stream) const = 0;

private:
    std::int32_t nb_inputs() const;
    void check_counts(std::int32_t nb_inputs, std::int32_t nb_outputs) const;
    void check_encodings(std::vector<Encoding> const& encodings) const;

    char const* name_;
    std::string metadata_;
    std::vector<nvinfer1::PluginField> serialized_fields_;
    nvinfer1::PluginFieldCollection serialized_{};
};

} // namespace irforge::tensorrt
