#include "channel_gate.h"
#include "mutual_gate.h"
#include "ort_api.h"
#include "spatial_gate.h"

namespace irforge::ort
{
namespace
{

// ONNX Runtime keeps pointers to the ops, so they live as long as the library.
template <typename Kernel, Device kDevice>
void add_op(Ort::CustomOpDomain& domain, Type output_of_float, Type output_of_half)
{
    static Op<Kernel> const of_float(Type::kFloat, output_of_float, kDevice);
    static Op<Kernel> const of_half(Type::kHalf, output_of_half, kDevice);
    domain.Add(&of_float);
    domain.Add(&of_half);
}

template <Device kDevice>
void add_ops(Ort::CustomOpDomain& domain)
{
    add_op<MutualGateKernel, kDevice>(domain, Type::kFloat, Type::kHalf);
    add_op<QuantizedMutualGateKernel, kDevice>(domain, Type::kInt8, Type::kInt8);
    add_op<SpatialGateKernel, kDevice>(domain, Type::kFloat, Type::kHalf);
    add_op<ChannelGateKernel, kDevice>(domain, Type::kFloat, Type::kHalf);
}

OrtStatus* too_old(OrtApiBase const* api_base)
{
    std::string const text = std::string("libirforge_ort.so needs ONNX Runtime 1.") + std::to_string(kApiVersion)
        + " or later; this one is " + api_base->GetVersionString();
    return api_base->GetApi(1)->CreateStatus(ORT_FAIL, text.c_str());
}

} // namespace
} // namespace irforge::ort

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, OrtApiBase const* api_base)
{
    using namespace irforge::ort;
    OrtApi const* const api = api_base->GetApi(kApiVersion);
    if (api == nullptr)
    {
        return too_old(api_base);
    }
    Ort::InitApi(api);
    return status_of("irforge",
        [&]
        {
            // Never released: a session may still use it while the process ends.
            static auto const* const domain = []
            {
                auto* const made = new Ort::CustomOpDomain("irforge");
                add_ops<Device::kCpu>(*made);
#ifdef IRFORGE_WITH_CUDA
                add_ops<Device::kCuda>(*made);
#endif
                return made;
            }();
            Ort::ThrowOnError(Ort::GetApi().AddCustomOpDomain(options, *domain));
        });
}

std::int64_t irforge_ort_calls(char const* op)
{
    using namespace irforge::ort;
    std::string const name = op == nullptr ? "" : op;
    return name == MutualGateKernel::kName         ? MutualGateKernel::calls.load()
        : name == QuantizedMutualGateKernel::kName ? QuantizedMutualGateKernel::calls.load()
        : name == SpatialGateKernel::kName         ? SpatialGateKernel::calls.load()
        : name == ChannelGateKernel::kName         ? ChannelGateKernel::calls.load()
                                                   : -1;
}

int irforge_ort_has_cuda(void)
{
#ifdef IRFORGE_WITH_CUDA
    return 1;
#else
    return 0;
#endif
}
