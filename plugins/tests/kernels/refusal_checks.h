#pragma once

namespace irforge::test
{

void check_mutual_gate_refusals();
void check_spatial_gate_refusals();
void check_channel_gate_refusals();

} // namespace irforge::test
