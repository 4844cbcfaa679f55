// The plugin promises an output of as many channels as an input.
#include "spoil.h"

#include <mutual_gate.h>

namespace irforge::test
{

namespace
{

class Narrow final : public tensorrt::MutualGate
{
public:
    using MutualGate::MutualGate;

protected:
    std::unique_ptr<Plugin> copy() const override
    {
        return std::make_unique<Narrow>(*this);
    }

    nvinfer1::DimsExprs output_shape(
        nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& /*expressions*/) const override
    {
        return inputs[0];
    }
};

std::unique_ptr<tensorrt::Plugin> make(tensorrt::Fields const&)
{
    return std::make_unique<Narrow>(std::nullopt);
}

} // namespace

void spoil(Creators& creators)
{
    static tensorrt::Creator narrow{"MutualGate", {}, make};
    creators[0] = &narrow;
}

} // namespace irforge::test
