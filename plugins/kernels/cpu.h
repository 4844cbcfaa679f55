// The kernels on the CPU, single-threaded; kLinear layout only.
#pragma once

#include "problem.h"

namespace irforge
{

// Pointers are to host memory of the problem's types and shapes. `refusal(problem)` must be nullptr.
void mutual_gate_cpu(MutualGateProblem const& problem, void const* g, void const* l, void* y);

void spatial_gate_cpu(SpatialGateProblem const& problem, void const* x, void const* weight, void* y);

void channel_gate_cpu(
    ChannelGateProblem const& problem, void const* x, void const* w1, void const* w2, void* y);

// A share of the work, for callers with threads: the elements first..last-1 of the N*C*H*W of G, ...
void mutual_gate_cpu(MutualGateProblem const& problem, std::int64_t first, std::int64_t last, void const* g,
    void const* l, void* y);

// ... and the rows first..last-1 of the N*H of X. Each share pools k/2 rows above and below it again.
void spatial_gate_cpu(SpatialGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x,
    void const* weight, void* y);

// ChannelGate has three steps, each of which needs all of the one before it: mean and maximum of the maps first..last-1
// of the N*C of X, side by side; every gate from them; the same maps times their gates.
void channel_gate_pool_cpu(
    ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x, float* pooled);
void channel_gate_gates_cpu(
    ChannelGateProblem const& problem, void const* w1, void const* w2, float const* pooled, float* gates);
void channel_gate_multiply_cpu(ChannelGateProblem const& problem, std::int64_t first, std::int64_t last, void const* x,
    float const* gates, void* y);

} // namespace irforge
