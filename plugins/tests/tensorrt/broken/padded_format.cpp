// The plugin takes kHWC8 for any number of channels, where TensorRT pads them and the kernel does not.
#include "spoil.h"

#include <spatial_gate.h>

namespace irforge::test
{

namespace
{

class Unwary final : public tensorrt::SpatialGate
{
protected:
    std::unique_ptr<Plugin> copy() const override
    {
        return std::make_unique<Unwary>(*this);
    }

    std::vector<tensorrt::Combination> const& combinations() const override
    {
        static std::vector<tensorrt::Combination> const unwary = [this]
        {
            auto all = SpatialGate::combinations();
            for (tensorrt::Combination& combination : all)
            {
                combination.channel_multiple = 1;
            }
            return all;
        }();
        return unwary;
    }
};

std::unique_ptr<tensorrt::Plugin> make(tensorrt::Fields const&)
{
    return std::make_unique<Unwary>();
}

} // namespace

void spoil(Creators& creators)
{
    static tensorrt::Creator unwary{"SpatialGate", {}, make};
    creators[2] = &unwary;
}

} // namespace irforge::test
