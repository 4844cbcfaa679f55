// The creator goes by a name that no node has.
#include "spoil.h"

#include <mutual_gate.h>

namespace irforge::test
{

namespace
{

std::unique_ptr<tensorrt::Plugin> make(tensorrt::Fields const&)
{
    return std::make_unique<tensorrt::MutualGate>(std::nullopt);
}

} // namespace

void spoil(Creators& creators)
{
    static tensorrt::Creator misnamed{"MutualGates", {}, make};
    creators[0] = &misnamed;
}

} // namespace irforge::test
