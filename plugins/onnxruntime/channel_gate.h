#pragma once

#include "op.h"

namespace irforge::ort
{

class ChannelGateKernel
{
public:
    static constexpr char const* kName = "ChannelGate";
    static constexpr std::size_t kInputs = 3;
    inline static std::atomic<std::int64_t> calls{0};

    explicit ChannelGateKernel(Node const& node);

    void compute(OrtKernelContext* context) const;

    static Dimensions infer(Dimensions const& x);

private:
    Type type_;
    Device device_;
};

} // namespace irforge::ort
