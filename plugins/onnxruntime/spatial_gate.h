#pragma once

#include "op.h"

namespace irforge::ort
{

class SpatialGateKernel
{
public:
    static constexpr char const* kName = "SpatialGate";
    static constexpr std::size_t kInputs = 2;
    inline static std::atomic<std::int64_t> calls{0};

    explicit SpatialGateKernel(Node const& node);

    void compute(OrtKernelContext* context) const;

    static Dimensions infer(Dimensions const& x);

private:
    Type type_;
    Device device_;
};

} // namespace irforge::ort
