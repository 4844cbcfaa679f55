// What libirforge_ort.so tells ONNX Runtime, seen by a stand-in for it: no library of ONNX Runtime is needed. The
// kernels inside a real session are tested from Python.
#include "../kernels/check.h"

#include <onnxruntime/ort_api.h>

#include <onnxruntime_c_api.h>

#include <set>
#include <string>
#include <vector>

// The C API leaves these open; here a status is its message and a domain the ops in it.
struct OrtStatus
{
    std::string message;
};

struct OrtCustomOpDomain
{
    std::string name;
    std::vector<OrtCustomOp const*> ops;
};

struct OrtSessionOptions
{
    std::vector<OrtCustomOpDomain const*> domains;
};

namespace
{

std::uint32_t newest = 0; // the version of the stand-in

OrtApi api()
{
    OrtApi api{};
    api.CreateStatus = [](OrtErrorCode, char const* message) noexcept { return new OrtStatus{message}; };
    api.CreateCustomOpDomain = [](char const* name, OrtCustomOpDomain** domain) noexcept -> OrtStatusPtr
    {
        *domain = new OrtCustomOpDomain{name, {}};
        return nullptr;
    };
    api.CustomOpDomain_Add = [](OrtCustomOpDomain* domain, OrtCustomOp const* op) noexcept -> OrtStatusPtr
    {
        domain->ops.push_back(op);
        return nullptr;
    };
    api.AddCustomOpDomain = [](OrtSessionOptions* options, OrtCustomOpDomain* domain) noexcept -> OrtStatusPtr
    {
        options->domains.push_back(domain);
        return nullptr;
    };
    return api;
}

OrtApi const* get_api(std::uint32_t version) noexcept
{
    static OrtApi const made = api();
    return version <= newest ? &made : nullptr;
}

char const* get_version() noexcept
{
    return "1.17.3";
}

constexpr OrtApiBase kBase{get_api, get_version};

std::string text(ONNXTensorElementDataType type)
{
    return type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "float32"
        : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? "float16"
        : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8    ? "int8"
                                                        : "?";
}

std::string text(OrtCustomOp const& op)
{
    char const* const provider = op.GetExecutionProviderType(&op);
    std::string line = op.GetName(&op);
    for (std::size_t input = 0; input < op.GetInputTypeCount(&op); ++input)
    {
        line += (input == 0 ? " " : ",") + text(op.GetInputType(&op, input));
    }
    return line + " to " + text(op.GetOutputType(&op, 0)) + " on " + (provider == nullptr ? "CPU" : provider);
}

void check_an_old_runtime_is_refused()
{
    newest = 17;
    OrtSessionOptions options;
    OrtStatus* const status = RegisterCustomOps(&options, &kBase);
    if (CHECK(status != nullptr))
    {
        std::string const expected = "libirforge_ort.so needs ONNX Runtime 1.18 or later; this one is 1.17.3";
        CHECK_IN(status->message == expected, status->message);
        delete status;
    }
    CHECK(options.domains.empty());
}

void check_the_ops()
{
    newest = 18;
    std::set<std::string> expected{
        "MutualGate float32,float32 to float32 on ",
        "MutualGate float16,float16 to float16 on ",
        "QuantizedMutualGate float32,float32 to int8 on ",
        "QuantizedMutualGate float16,float16 to int8 on ",
        "SpatialGate float32,float32 to float32 on ",
        "SpatialGate float16,float16 to float16 on ",
        "ChannelGate float32,float32,float32 to float32 on ",
        "ChannelGate float16,float16,float16 to float16 on ",
    };
    std::vector<std::string> providers{"CPU"};
#ifdef IRFORGE_WITH_CUDA
    providers.push_back("CUDAExecutionProvider");
#endif
    OrtSessionOptions options;
    CHECK(RegisterCustomOps(&options, &kBase) == nullptr);
    if (!CHECK(options.domains.size() == 1))
    {
        return;
    }
    OrtCustomOpDomain const& domain = *options.domains.front();
    CHECK(domain.name == "irforge");
    CHECK(domain.ops.size() == expected.size() * providers.size());
    std::set<std::string> found;
    for (OrtCustomOp const* op : domain.ops)
    {
        found.insert(text(*op));
        CHECK_IN(op->version == 18, text(*op));
        CHECK_IN(op->GetOutputTypeCount(op) == 1, text(*op));
        CHECK_IN(op->GetStartVersion(op) == 1, text(*op));
    }
    for (std::string const& op : expected)
    {
        for (std::string const& provider : providers)
        {
            CHECK_IN(found.count(op + provider) == 1, op + provider);
        }
    }

    OrtSessionOptions second;
    CHECK(RegisterCustomOps(&second, &kBase) == nullptr);
    CHECK(second.domains == options.domains);
}

void check_the_counters()
{
    for (char const* op : {"MutualGate", "QuantizedMutualGate", "SpatialGate", "ChannelGate"})
    {
        CHECK_IN(irforge_ort_calls(op) == 0, op);
    }
    CHECK(irforge_ort_calls("Sigmoid") == -1);
    CHECK(irforge_ort_calls(nullptr) == -1);
}

} // namespace

int main()
{
    check_an_old_runtime_is_refused();
    check_the_ops();
    check_the_counters();
    return irforge::test::report("ONNX Runtime ops");
}
