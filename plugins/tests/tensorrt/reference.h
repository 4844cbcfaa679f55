// The operators in float64, from their definition alone.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

namespace irforge::test
{

struct Reference
{
    std::vector<double> value;
    std::vector<double> error; // what FP32 arithmetic may differ, before the result is rounded to its type
};

// Both halves, each divided by its scale; pass 1 for an output that is not quantised.
Reference mutual_gate_reference(nvinfer1::Dims const& dims, std::vector<double> const& g, std::vector<double> const& l,
    double scale_g, double scale_l);

Reference spatial_gate_reference(
    nvinfer1::Dims const& dims, std::vector<double> const& x, std::int64_t side, std::vector<double> const& weight);

// W1 is hidden x C, W2 is C x hidden.
Reference channel_gate_reference(nvinfer1::Dims const& dims, std::vector<double> const& x, std::int64_t hidden,
    std::vector<double> const& w1, std::vector<double> const& w2);

} // namespace irforge::test
