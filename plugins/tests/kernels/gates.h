// What the kernels promise on every device, checked against float64 arithmetic.
#pragma once

#include "tensors.h"

namespace irforge::test
{

// One way to compute the ops. Tensors come and go in host memory.
class Device
{
public:
    virtual ~Device() = default;

    // `shift`: elements by which every tensor starts past an aligned address.
    virtual Bytes mutual_gate(MutualGateProblem const& problem, Bytes const& g, Bytes const& l, int shift) = 0;
    virtual Bytes spatial_gate(SpatialGateProblem const& problem, Bytes const& x, Bytes const& weight, int shift) = 0;
    virtual Bytes channel_gate(
        ChannelGateProblem const& problem, Bytes const& x, Bytes const& w1, Bytes const& w2, int shift)
        = 0;

    virtual bool has(Layout layout) const = 0;
};

void check_mutual_gate(Device& device);
void check_spatial_gate(Device& device);
void check_channel_gate(Device& device);

} // namespace irforge::test
