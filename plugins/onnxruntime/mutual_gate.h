#pragma once

#include "op.h"

namespace irforge::ort
{

class MutualGateKernel
{
public:
    static constexpr char const* kName = "MutualGate";
    static constexpr std::size_t kInputs = 2;
    inline static std::atomic<std::int64_t> calls{0};

    explicit MutualGateKernel(Node const& node);

    void compute(OrtKernelContext* context) const;

    static Dimensions infer(Dimensions const& g);

protected:
    MutualGateProblem problem_{}; // all but the shape
    Device device_;
};

class QuantizedMutualGateKernel : public MutualGateKernel
{
public:
    static constexpr char const* kName = "QuantizedMutualGate";
    inline static std::atomic<std::int64_t> calls{0};

    explicit QuantizedMutualGateKernel(Node const& node);
};

} // namespace irforge::ort
