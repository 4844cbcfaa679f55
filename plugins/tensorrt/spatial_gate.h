#pragma once

#include "creator.h"
#include "plugin.h"

#include <kernels/problem.h>

#include <memory>

namespace irforge::tensorrt
{

// SpatialGate(X, W); see kernels/problem.h. The side of the kernel is read from the shape of W.
class SpatialGate : public Plugin
{
public:
    SpatialGate();

protected:
    std::unique_ptr<Plugin> copy() const override;
    std::vector<Combination> const& combinations() const override;
    nvinfer1::DimsExprs output_shape(
        nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& expressions) const override;
    std::size_t workspace_bytes(nvinfer1::DynamicPluginTensorDesc const* inputs) const override;
    void check_shapes(
        nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const& output) const override;
    cudaError_t launch(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const& output_desc,
        void const* const* inputs, void* output, void* workspace, cudaStream_t stream) const override;
};

Creator spatial_gate_creator();

} // namespace irforge::tensorrt
