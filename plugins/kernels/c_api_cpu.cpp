#include "c_api_problem.h"
#include "cpu.h"

using namespace irforge;

namespace
{

constexpr char const* kLinearOnly = "on the CPU the layout must be linear: transpose, or compute on a GPU";

} // namespace

char const* irforge_mutual_gate_refusal(irforge_mutual_gate const* problem)
{
    bool const linear = problem->input_layout == IRFORGE_LINEAR && problem->output_layout == IRFORGE_LINEAR;
    return linear ? refusal(problem_of(*problem)) : kLinearOnly;
}

char const* irforge_spatial_gate_refusal(irforge_spatial_gate const* problem)
{
    return problem->layout == IRFORGE_LINEAR ? refusal(problem_of(*problem)) : kLinearOnly;
}

char const* irforge_channel_gate_refusal(irforge_channel_gate const* problem)
{
    return problem->layout == IRFORGE_LINEAR ? refusal(problem_of(*problem)) : kLinearOnly;
}

int irforge_mutual_gate_cpu(irforge_mutual_gate const* problem, void const* g, void const* l, void* y)
{
    if (irforge_mutual_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    mutual_gate_cpu(problem_of(*problem), g, l, y);
    return 0;
}

int irforge_spatial_gate_cpu(irforge_spatial_gate const* problem, void const* x, void const* weight, void* y)
{
    if (irforge_spatial_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    spatial_gate_cpu(problem_of(*problem), x, weight, y);
    return 0;
}

int irforge_channel_gate_cpu(
    irforge_channel_gate const* problem, void const* x, void const* w1, void const* w2, void* y)
{
    if (irforge_channel_gate_refusal(problem) != nullptr)
    {
        return IRFORGE_REFUSED;
    }
    channel_gate_cpu(problem_of(*problem), x, w1, w2, y);
    return 0;
}
