// Whatever the library is asked wrongly, it refuses with one line in the log, which names the plugin and the cause.
#include "check.h"
#include "expressions.h"
#include "host.h"
#include "tests.h"

#include <array>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

constexpr float kScale = 0.5F;
constexpr float kZero = 0.0F;
constexpr float kNegative = -0.5F;
constexpr float kTiny = 1e-37F;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int32_t kInteger = 1;
constexpr std::array<float, 2> kPair{0.5F, 0.5F};

PluginField const kScaleG{"scale_g", &kScale, PluginFieldType::kFLOAT32, 1};
PluginField const kScaleL{"scale_l", &kScale, PluginFieldType::kFLOAT32, 1};

struct FieldMisuse
{
    char const* what;
    char const* plugin;
    Fields fields;
    char const* cause; // is in the line
};

std::vector<FieldMisuse> const kFieldMisuses{
    {"a field of a plugin without fields", "MutualGate", {kScaleG}, "'scale_g' is unknown"},
    {"an unknown field", "QuantizedMutualGate",
        {kScaleG, kScaleL, {"scale", &kScale, PluginFieldType::kFLOAT32, 1}}, "'scale' is unknown"},
    {"an unknown field of SpatialGate", "SpatialGate", {{"kernel", &kInteger, PluginFieldType::kINT32, 1}},
        "'kernel' is unknown"},
    {"a field without a name", "MutualGate", {{nullptr, &kScale, PluginFieldType::kFLOAT32, 1}}, "unknown"},
    {"no fields", "QuantizedMutualGate", {}, "'scale_g' is missing"},
    {"one field of two", "QuantizedMutualGate", {kScaleG}, "'scale_l' is missing"},
    {"a field given twice", "QuantizedMutualGate", {kScaleG, kScaleG}, "'scale_g' is given twice"},
    {"an integer for a float", "QuantizedMutualGate",
        {kScaleG, {"scale_l", &kInteger, PluginFieldType::kINT32, 1}}, "'scale_l' must have type"},
    {"two floats for one", "QuantizedMutualGate",
        {kScaleG, {"scale_l", kPair.data(), PluginFieldType::kFLOAT32, 2}}, "length"},
    {"an empty field", "QuantizedMutualGate", {kScaleG, {"scale_l", &kScale, PluginFieldType::kFLOAT32, 0}}, "length"},
    {"a field without data", "QuantizedMutualGate",
        {kScaleG, {"scale_l", nullptr, PluginFieldType::kFLOAT32, 1}}, "'scale_l' has no data"},
    {"a scale of zero", "QuantizedMutualGate", scales(&kZero, &kScale), "'scale_g' must be finite and above zero"},
    {"a negative scale", "QuantizedMutualGate", scales(&kScale, &kNegative), "'scale_l' must be finite and above"},
    {"a scale that is no number", "QuantizedMutualGate", scales(&kNan, &kScale), "found nan"},
    {"a scale below the kernels' least", "QuantizedMutualGate", scales(&kTiny, &kScale), "scale_g and scale_l"},
    {"an infinite scale", "QuantizedMutualGate", scales(&kScale, &kInfinity), "found inf"},
};

std::int32_t types(IPluginV3& plugin, std::vector<DataType> const& inputs, std::int32_t outputs = 1)
{
    DataType output{};
    return build(plugin).getOutputDataTypes(
        &output, outputs, inputs.data(), static_cast<std::int32_t>(inputs.size()));
}

std::int32_t shapes(IPluginV3& plugin, std::vector<std::vector<std::string>> const& inputs,
    std::int32_t shape_inputs = 0)
{
    Expressions expressions;
    std::vector<DimsExprs> dims;
    for (auto const& input : inputs)
    {
        dims.push_back(expressions.parse(input));
    }
    DimsExprs output{};
    return build(plugin).getOutputShapes(
        dims.data(), static_cast<std::int32_t>(dims.size()), dims.data(), shape_inputs, &output, 1, expressions);
}

std::int32_t configure(IPluginV3& plugin, std::vector<PluginTensorDesc> const& tensors)
{
    std::vector<DynamicPluginTensorDesc> bounds;
    for (PluginTensorDesc const& tensor : tensors)
    {
        bounds.push_back(fixed(tensor));
    }
    auto const inputs = static_cast<std::int32_t>(bounds.size()) - 1;
    return build(plugin).configurePlugin(bounds.data(), inputs, &bounds.back(), 1);
}

std::int32_t reshape(IPluginV3& plugin, std::vector<PluginTensorDesc> const& tensors)
{
    auto const inputs = static_cast<std::int32_t>(tensors.size()) - 1;
    return runtime(plugin).onShapeChange(tensors.data(), inputs, &tensors.back(), 1);
}

// No memory is behind these pointers: a refusal comes before any is touched.
std::int32_t enqueue(IPluginV3& plugin, std::vector<PluginTensorDesc> const& tensors)
{
    std::array<void const*, 3> const inputs{};
    std::array<void*, 1> const outputs{};
    return runtime(plugin).enqueue(tensors.data(), &tensors.back(), inputs.data(), outputs.data(), nullptr, nullptr);
}

// Whether the plugin accepts a question about formats that has no meaning, as a return code.
std::int32_t formats(IPluginV3& plugin, std::int32_t position, std::int32_t inputs)
{
    std::vector<DynamicPluginTensorDesc> const tensors(4, fixed(tensor(dims({1, 8, 5, 7}), DataType::kFLOAT)));
    return build(plugin).supportsFormatCombination(position, tensors.data(), inputs, 1) ? 0 : 1;
}

PluginTensorDesc floats(std::vector<std::int64_t> const& extents)
{
    return tensor(dims(extents), DataType::kFLOAT);
}

PluginTensorDesc hwc8(std::vector<std::int64_t> const& extents)
{
    return tensor(dims(extents), DataType::kHALF, TensorFormat::kHWC8);
}

PluginTensorDesc chw32(std::vector<std::int64_t> const& extents)
{
    return tensor(dims(extents), DataType::kINT8, TensorFormat::kCHW32);
}

// Of a ChannelGate over a map of 1 x 8 x 5 x 7.
std::vector<PluginTensorDesc> channel_gate(
    std::vector<std::int64_t> const& w1, std::vector<std::int64_t> const& w2, std::int64_t channels = 8)
{
    return {floats({1, 8, 5, 7}), floats(w1), floats(w2), floats({1, channels, 5, 7})};
}

struct CallMisuse
{
    char const* what;
    char const* plugin;
    std::function<std::int32_t(IPluginV3&)> call; // gives 0 where it is accepted
    char const* cause;
};

constexpr auto kFloat = DataType::kFLOAT;
constexpr auto kHalf = DataType::kHALF;
using Words = std::vector<std::string>;
Words const kMap{"N", "8", "H", "W"};

std::vector<CallMisuse> const kCallMisuses{
    {"types of one input", "MutualGate", [](auto& p) { return types(p, {kFloat}); }, "takes 2 inputs"},
    {"types of three inputs", "MutualGate", [](auto& p) { return types(p, {kFloat, kFloat, kFloat}); },
        "takes 2 inputs"},
    {"types of two outputs", "SpatialGate", [](auto& p) { return types(p, {kFloat, kFloat}, 2); }, "gives 1 output"},
    {"mixed types", "MutualGate", [](auto& p) { return types(p, {kFloat, kHalf}); },
        "no kernel for inputs of the types float32, float16"},
    {"integers", "QuantizedMutualGate", [](auto& p) { return types(p, {DataType::kINT32, DataType::kINT32}); },
        "no kernel for inputs of the types data type "},
    {"bfloat16", "SpatialGate", [](auto& p) { return types(p, {DataType::kBF16, DataType::kBF16}); },
        "no kernel for inputs of the types data type "},
    {"shapes of one input", "MutualGate", [](auto& p) { return shapes(p, {kMap}); }, "takes 2 inputs"},
    {"shapes of rank 3", "MutualGate", [](auto& p) { return shapes(p, {kMap, {"8", "H", "W"}}); },
        "input 1 must have 4 dimensions, found 3"},
    {"a shape input", "SpatialGate", [](auto& p) { return shapes(p, {kMap, {"1", "2", "7", "7"}}, 1); },
        "no shape inputs"},
    {"formats of three inputs", "MutualGate", [](auto& p) { return formats(p, 0, 3); }, "takes 2 inputs"},
    {"the format of a fourth tensor", "SpatialGate", [](auto& p) { return formats(p, 3, 2); }, "position 3"},
    {"the format of a tensor before the first", "SpatialGate", [](auto& p) { return formats(p, -1, 2); },
        "position -1"},
    {"one input configured", "MutualGate",
        [](auto& p) { return configure(p, {floats({1, 8, 5, 7}), floats({1, 16, 5, 7})}); }, "takes 2 inputs"},
    {"float32 configured where int8 comes out", "QuantizedMutualGate",
        [](auto& p) { return configure(p, {floats({1, 8, 5, 7}), floats({1, 8, 5, 7}), floats({1, 16, 5, 7})}); },
        "no kernel for the tensors float32 linear, float32 linear, float32 linear"},
    {"one input at run time", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 8, 5, 7})}); }, "takes 2 inputs"},
    {"inputs in two formats", "MutualGate",
        [](auto& p)
        { return reshape(p, {hwc8({1, 8, 5, 7}), tensor(dims({1, 8, 5, 7}), kHalf), hwc8({1, 16, 5, 7})}); },
        "no kernel for the tensors float16 HWC8, float16 linear, float16 HWC8"},
    {"inputs of two shapes", "MutualGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 8, 5, 9}), floats({1, 16, 5, 7})}); },
        "G 1x8x5x7, L 1x8x5x9"},
    {"an output with as many channels as an input", "MutualGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 8, 5, 7}), floats({1, 8, 5, 7})}); },
        "Y 1x8x5x7"},
    {"a shape still open at run time", "MutualGate",
        [](auto& p) { return reshape(p, {floats({1, 8, -1, 7}), floats({1, 8, -1, 7}), floats({1, 16, -1, 7})}); },
        "G must be N x C x H x W, found 1x8x-1x7"},
    {"rank 3 at run time", "MutualGate",
        [](auto& p) { return reshape(p, {floats({8, 5, 7}), floats({8, 5, 7}), floats({16, 5, 7})}); },
        "G must be N x C x H x W, found 8x5x7"},
    {"HWC8 with padded channels", "MutualGate",
        [](auto& p) { return reshape(p, {hwc8({1, 12, 5, 7}), hwc8({1, 12, 5, 7}), hwc8({1, 24, 5, 7})}); }, ""},
    {"CHW32 with padded channels", "QuantizedMutualGate",
        [](auto& p) { return reshape(p, {hwc8({1, 8, 5, 7}), hwc8({1, 8, 5, 7}), chw32({1, 16, 5, 7})}); }, ""},
    {"weights that are not square", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 2, 7, 5}), floats({1, 8, 5, 7})}); },
        "W must be 1 x 2 x k x k, found 1x2x7x5"},
    {"weights for three maps", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 3, 7, 7}), floats({1, 8, 5, 7})}); },
        "W must be 1 x 2 x k x k, found 1x3x7x7"},
    {"weights of an even side", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 2, 4, 4}), floats({1, 8, 5, 7})}); }, ""},
    {"weights of a side beyond the kernels'", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 2, 17, 17}), floats({1, 8, 5, 7})}); }, ""},
    {"an output of another shape", "SpatialGate",
        [](auto& p) { return reshape(p, {floats({1, 8, 5, 7}), floats({1, 2, 7, 7}), floats({1, 8, 5, 9})}); },
        "Y must have the shape of X"},
    {"types of two inputs", "ChannelGate", [](auto& p) { return types(p, {kFloat, kFloat}); }, "takes 3 inputs"},
    {"weights of another number of channels", "ChannelGate",
        [](auto& p) { return reshape(p, channel_gate({2, 6, 1, 1}, {8, 2, 1, 1})); },
        "W1 2x6x1x1"},
    {"weights of two hidden widths", "ChannelGate",
        [](auto& p) { return reshape(p, channel_gate({2, 8, 1, 1}, {8, 3, 1, 1})); },
        "W2 8x3x1x1"},
    {"weights of a 3x3 convolution", "ChannelGate",
        [](auto& p) { return reshape(p, channel_gate({2, 8, 3, 3}, {8, 2, 1, 1})); },
        "W1 must be h x C x 1 x 1"},
    {"a hidden layer of nothing", "ChannelGate",
        [](auto& p) { return reshape(p, channel_gate({0, 8, 1, 1}, {8, 0, 1, 1})); },
        "h at least 1"},
    {"a map of one channel less", "ChannelGate",
        [](auto& p) { return reshape(p, channel_gate({2, 8, 1, 1}, {8, 2, 1, 1}, 7)); },
        "Y must have the shape of X"},
    {"no workspace", "ChannelGate",
        [](auto& p) { return enqueue(p, channel_gate({2, 8, 1, 1}, {8, 2, 1, 1})); },
        "no workspace"},
    {"shapes at execution that do not fit", "QuantizedMutualGate",
        [](auto& p)
        {
            PluginTensorDesc const output = tensor(dims({1, 16, 5, 7}), DataType::kINT8);
            return enqueue(p, {floats({1, 8, 5, 7}), floats({2, 8, 5, 7}), output});
        },
        "L 2x8x5x7"},
    {"execution without workspace", "SpatialGate",
        [](auto& p) { return enqueue(p, {floats({1, 8, 5, 7}), floats({1, 2, 7, 7}), floats({1, 8, 5, 7})}); },
        "no workspace"},
};

void expect_one_line(Library& library, std::string const& plugin, std::string const& cause, std::string const& what)
{
    auto const lines = library.log().take();
    expect_equal(lines.size(), std::size_t{1}, what + ": lines in the log");
    if (!lines.empty())
    {
        expect(lines[0].find("irforge " + plugin) == 0, what + ": the line names the plugin: " + lines[0]);
        expect(lines[0].find(cause) != std::string::npos, what + ": the line says '" + cause + "': " + lines[0]);
        expect(lines[0].find('\n') == std::string::npos, what + ": is told in one line");
    }
}

class ThrowingFinder final : public ILoggerFinder
{
public:
    ILogger* findLogger() override
    {
        throw std::runtime_error("no logger");
    }
};

} // namespace

void a_misuse_is_refused_with_one_line(Library& library)
{
    expect_equal(library.log().take().size(), std::size_t{0}, "lines in the log before any misuse");
    for (FieldMisuse const& misuse : kFieldMisuses)
    {
        for (TensorRTPhase const phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME})
        {
            auto const fields = collection(misuse.fields);
            PluginPtr const plugin{library.creator(misuse.plugin).createPlugin("fuse", &fields, phase)};
            expect(plugin == nullptr, std::string{misuse.what} + " gives no plugin");
            expect_one_line(library, std::string{misuse.plugin} + " 'fuse': ", misuse.cause, misuse.what);
        }
    }
    for (CallMisuse const& misuse : kCallMisuses)
    {
        PluginPtr const plugin = library.plugin(misuse.plugin, fields_of(misuse.plugin));
        expect(misuse.call(*plugin) != 0, std::string{misuse.what} + " is refused");
        expect_one_line(library, std::string{misuse.plugin} + ": ", misuse.cause, misuse.what);
    }
}

void a_missing_logger_is_survived(Library& library)
{
    ThrowingFinder throwing;
    for (ILoggerFinder* const finder : {static_cast<ILoggerFinder*>(nullptr), static_cast<ILoggerFinder*>(&throwing)})
    {
        library.find_loggers_with(finder);
        PluginPtr const plugin{
            library.creator("QuantizedMutualGate").createPlugin(nullptr, nullptr, TensorRTPhase::kBUILD)};
        expect(plugin == nullptr, "a misuse is refused where nobody listens");
    }
    library.find_loggers_with(&library.log());
    expect_equal(library.log().take().size(), std::size_t{0}, "lines in a log that was not asked for");
}

} // namespace irforge::test
