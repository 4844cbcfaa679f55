#pragma once

#include "creator.h"
#include "plugin.h"

#include <kernels/problem.h>

#include <memory>
#include <optional>

namespace irforge::tensorrt
{

// Divisors of the two halves of an int8 output.
struct Scales
{
    float g;
    float l;
};

// MutualGate(G, L), or QuantizedMutualGate(G, L) where scales are given; see kernels/problem.h.
class MutualGate : public Plugin
{
public:
    // Throws std::invalid_argument for scales that the kernels refuse.
    explicit MutualGate(std::optional<Scales> scales);

protected:
    std::unique_ptr<Plugin> copy() const override;
    std::vector<Combination> const& combinations() const override;
    std::vector<nvinfer1::PluginField> fields() const override;
    nvinfer1::DataType output_type(nvinfer1::DataType input) const override;
    nvinfer1::DimsExprs output_shape(
        nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& expressions) const override;
    void check_shapes(
        nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const& output) const override;
    cudaError_t launch(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const& output_desc,
        void const* const* inputs, void* output, void* workspace, cudaStream_t stream) const override;

private:
    MutualGateProblem problem(
        nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const& output) const;

    std::optional<Scales> scales_;
};

Creator mutual_gate_creator();
Creator quantized_mutual_gate_creator();

} // namespace irforge::tensorrt
