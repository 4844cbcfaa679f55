#include "plugin.h"

#include "fields.h"
#include "log.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace irforge::tensorrt
{

using namespace nvinfer1;

namespace
{

constexpr std::int32_t kSuccess = 0;
constexpr std::int32_t kFailure = 1;

bool channels_divide(Dims const& dims, std::int64_t multiple)
{
    return multiple == 1 || (dims.nbDims == 4 && dims.d[1] > 0 && dims.d[1] % multiple == 0);
}

} // namespace

Plugin::Plugin(char const* name)
    : name_{name}
{
}

IPluginCapability* Plugin::getCapabilityInterface(PluginCapabilityType type) noexcept
{
    switch (type)
    {
    case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
    case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
    case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

IPluginV3* Plugin::clone() noexcept
{
    return guarded<IPluginV3*>({name_}, nullptr, [this] { return copy().release(); });
}

IPluginV3* Plugin::attachToContext(IPluginResourceContext* /*context*/) noexcept
{
    return clone();
}

char const* Plugin::getPluginName() const noexcept
{
    return name_;
}

char const* Plugin::getPluginVersion() const noexcept
{
    return "1";
}

char const* Plugin::getPluginNamespace() const noexcept
{
    return "";
}

std::int32_t Plugin::getNbOutputs() const noexcept
{
    return 1;
}

std::int32_t Plugin::configurePlugin(DynamicPluginTensorDesc const* inputs, std::int32_t nb_inputs,
    DynamicPluginTensorDesc const* outputs, std::int32_t nb_outputs) noexcept
{
    return guarded({name_}, kFailure,
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            std::vector<Encoding> encodings;
            std::for_each(inputs, inputs + nb_inputs,
                [&](DynamicPluginTensorDesc const& tensor) { encodings.push_back(encoding_of(tensor.desc)); });
            encodings.push_back(encoding_of(outputs[0].desc));
            check_encodings(encodings);
            return kSuccess;
        });
}

std::int32_t Plugin::getOutputDataTypes(DataType* output_types, std::int32_t nb_outputs, DataType const* input_types,
    std::int32_t nb_inputs) const noexcept
{
    return guarded({name_}, kFailure,
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            auto const known = [&](Combination const& combination)
            {
                return std::equal(input_types, input_types + nb_inputs, combination.tensors.begin(),
                    [](DataType type, Encoding const& encoding) { return type == encoding.type; });
            };
            if (std::none_of(combinations().begin(), combinations().end(), known))
            {
                std::string found;
                std::for_each(input_types, input_types + nb_inputs,
                    [&](DataType type) { found += (found.empty() ? "" : ", ") + text(type); });
                throw std::invalid_argument("no kernel for inputs of the types " + found);
            }
            output_types[0] = output_type(input_types[0]);
            return kSuccess;
        });
}

std::int32_t Plugin::getOutputShapes(DimsExprs const* inputs, std::int32_t nb_inputs, DimsExprs const* /*shape_inputs*/,
    std::int32_t nb_shape_inputs, DimsExprs* outputs, std::int32_t nb_outputs, IExprBuilder& expressions) noexcept
{
    return guarded({name_}, kFailure,
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            if (nb_shape_inputs != 0)
            {
                throw std::invalid_argument("takes no shape inputs");
            }
            for (std::int32_t i = 0; i < nb_inputs; ++i)
            {
                if (inputs[i].nbDims != 4)
                {
                    throw std::invalid_argument("input " + std::to_string(i) + " must have 4 dimensions, found "
                        + std::to_string(inputs[i].nbDims));
                }
            }
            outputs[0] = output_shape(inputs, expressions);
            return kSuccess;
        });
}

bool Plugin::supportsFormatCombination(std::int32_t position, DynamicPluginTensorDesc const* tensors,
    std::int32_t nb_inputs, std::int32_t nb_outputs) noexcept
{
    return guarded({name_}, false,
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            if (position < 0 || position >= nb_inputs + nb_outputs)
            {
                throw std::invalid_argument("there is no tensor at position " + std::to_string(position));
            }
            // Tensors after `position` are not set yet, so a combination is held against those up to it only.
            auto const agrees = [&](Combination const& combination)
            {
                return channels_divide(tensors[0].desc.dims, combination.channel_multiple)
                    && std::equal(tensors, tensors + position + 1, combination.tensors.begin(),
                        [](DynamicPluginTensorDesc const& tensor, Encoding const& encoding)
                        { return encoding_of(tensor.desc) == encoding; });
            };
            return std::any_of(combinations().begin(), combinations().end(), agrees);
        });
}

std::size_t Plugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, std::int32_t nb_inputs,
    DynamicPluginTensorDesc const* /*outputs*/, std::int32_t nb_outputs) const noexcept
{
    return guarded({name_}, std::size_t{0},
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            return workspace_bytes(inputs);
        });
}

char const* Plugin::getTimingCacheID() noexcept
{
    // Attributes change values, never the work, so plugins of one name share their timings.
    return name_;
}

char const* Plugin::getMetadataString() noexcept
{
    return guarded({name_}, "",
        [this]
        {
            metadata_ = name_;
            for (PluginField const& field : fields())
            {
                metadata_ += " " + text(field);
            }
            return metadata_.c_str();
        });
}

std::int32_t Plugin::onShapeChange(PluginTensorDesc const* inputs, std::int32_t nb_inputs,
    PluginTensorDesc const* outputs, std::int32_t nb_outputs) noexcept
{
    return guarded({name_}, kFailure,
        [&]
        {
            check_counts(nb_inputs, nb_outputs);
            std::vector<Encoding> encodings;
            std::transform(inputs, inputs + nb_inputs, std::back_inserter(encodings), encoding_of);
            encodings.push_back(encoding_of(outputs[0]));
            check_encodings(encodings);
            check_shapes(inputs, outputs[0]);
            return kSuccess;
        });
}

std::int32_t Plugin::enqueue(PluginTensorDesc const* input_descs, PluginTensorDesc const* output_descs,
    void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept
{
    return guarded({name_}, static_cast<std::int32_t>(cudaErrorInvalidValue),
        [&]
        {
            cudaError_t const status = launch(input_descs, output_descs[0], inputs, outputs[0], workspace, stream);
            if (status != cudaSuccess)
            {
                log_error({name_}, cudaGetErrorString(status));
            }
            return static_cast<std::int32_t>(status);
        });
}

PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept
{
    return guarded<PluginFieldCollection const*>({name_}, nullptr,
        [this]
        {
            serialized_fields_ = fields();
            serialized_ = {static_cast<std::int32_t>(serialized_fields_.size()), serialized_fields_.data()};
            return &serialized_;
        });
}

std::vector<PluginField> Plugin::fields() const
{
    return {};
}

DataType Plugin::output_type(DataType input) const
{
    return input;
}

std::size_t Plugin::workspace_bytes(DynamicPluginTensorDesc const* /*inputs*/) const
{
    return 0;
}

std::int32_t Plugin::nb_inputs() const
{
    return static_cast<std::int32_t>(combinations().front().tensors.size()) - 1;
}

void Plugin::check_counts(std::int32_t nb_inputs, std::int32_t nb_outputs) const
{
    if (nb_inputs != this->nb_inputs() || nb_outputs != 1)
    {
        throw std::invalid_argument("takes " + std::to_string(this->nb_inputs()) + " inputs and gives 1 output, found "
            + std::to_string(nb_inputs) + " and " + std::to_string(nb_outputs));
    }
}

void Plugin::check_encodings(std::vector<Encoding> const& encodings) const
{
    auto const same = [&](Combination const& combination) { return combination.tensors == encodings; };
    if (std::none_of(combinations().begin(), combinations().end(), same))
    {
        std::string found;
        for (Encoding const& encoding : encodings)
        {
            found += (found.empty() ? "" : ", ") + text(encoding);
        }
        throw std::invalid_argument("no kernel for the tensors " + found);
    }
}

} // namespace irforge::tensorrt
