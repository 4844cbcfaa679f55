#pragma once

#include "c_api.h"
#include "problem.h"

namespace irforge
{

inline MutualGateProblem problem_of(irforge_mutual_gate const& c)
{
    MutualGateProblem problem;
    problem.shape = {c.batch, c.channels, c.height, c.width};
    problem.input = static_cast<Type>(c.input_type);
    problem.output = static_cast<Type>(c.output_type);
    problem.input_layout = static_cast<Layout>(c.input_layout);
    problem.output_layout = static_cast<Layout>(c.output_layout);
    problem.scale_g = c.scale_g;
    problem.scale_l = c.scale_l;
    return problem;
}

inline SpatialGateProblem problem_of(irforge_spatial_gate const& c)
{
    SpatialGateProblem problem;
    problem.shape = {c.batch, c.channels, c.height, c.width};
    problem.type = static_cast<Type>(c.type);
    problem.layout = static_cast<Layout>(c.layout);
    problem.kernel = c.kernel;
    return problem;
}

inline ChannelGateProblem problem_of(irforge_channel_gate const& c)
{
    ChannelGateProblem problem;
    problem.shape = {c.batch, c.channels, c.height, c.width};
    problem.type = static_cast<Type>(c.type);
    problem.layout = static_cast<Layout>(c.layout);
    problem.hidden = c.hidden;
    return problem;
}

} // namespace irforge
