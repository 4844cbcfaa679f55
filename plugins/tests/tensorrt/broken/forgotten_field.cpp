// The plugin does not serialise scale_l, so no engine that holds it can be loaded.
#include "spoil.h"

#include <mutual_gate.h>

namespace irforge::test
{

namespace
{

class Forgetful final : public tensorrt::MutualGate
{
public:
    using MutualGate::MutualGate;

protected:
    std::unique_ptr<Plugin> copy() const override
    {
        return std::make_unique<Forgetful>(*this);
    }

    std::vector<nvinfer1::PluginField> fields() const override
    {
        auto fields = MutualGate::fields();
        fields.pop_back();
        return fields;
    }
};

std::unique_ptr<tensorrt::Plugin> make(tensorrt::Fields const& fields)
{
    return std::make_unique<Forgetful>(tensorrt::Scales{fields.positive("scale_g"), fields.positive("scale_l")});
}

} // namespace

void spoil(Creators& creators)
{
    static tensorrt::Creator forgetful{
        "QuantizedMutualGate", {tensorrt::float_field("scale_g"), tensorrt::float_field("scale_l")}, make};
    creators[1] = &forgetful;
}

} // namespace irforge::test
