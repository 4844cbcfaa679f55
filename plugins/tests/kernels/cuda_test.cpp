#include "check.h"
#include "gates.h"

#include <kernels/cuda.h>

#include <stdexcept>

using namespace irforge;
using namespace irforge::test;

namespace
{

void require(cudaError_t error)
{
    if (error != cudaSuccess)
    {
        throw std::runtime_error(cudaGetErrorString(error));
    }
}

// Device memory from `shift` bytes past an aligned address on.
class Buffer
{
public:
    Buffer(std::size_t bytes, std::size_t shift)
        : bytes_(bytes)
        , shift_(shift)
    {
        require(cudaMalloc(&memory_, bytes + shift + kGuard));
        require(cudaMemset(memory_, kFill, bytes + shift + kGuard));
    }

    Buffer(Bytes const& bytes, std::size_t shift)
        : Buffer(bytes.size(), shift)
    {
        require(cudaMemcpy(data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    }

    ~Buffer()
    {
        cudaFree(memory_);
    }

    Buffer(Buffer const&) = delete;
    Buffer& operator=(Buffer const&) = delete;

    void* data() const
    {
        return static_cast<std::byte*>(memory_) + shift_;
    }

    // What was written; checks that nothing was written before or after it.
    Bytes written() const
    {
        Bytes all(bytes_ + shift_ + kGuard);
        require(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost));
        bool intact = true;
        for (std::size_t i = 0; i < all.size(); ++i)
        {
            intact = intact && ((i >= shift_ && i < shift_ + bytes_) || all[i] == std::byte{kFill});
        }
        CHECK_IN(intact, std::to_string(bytes_) + " bytes shifted by " + std::to_string(shift_));
        auto const first = all.begin() + static_cast<std::ptrdiff_t>(shift_);
        return {first, first + static_cast<std::ptrdiff_t>(bytes_)};
    }

private:
    static constexpr std::size_t kGuard = 256;
    static constexpr unsigned char kFill = 0xA5;

    void* memory_ = nullptr;
    std::size_t bytes_;
    std::size_t shift_;
};

class Cuda : public Device
{
public:
    Bytes mutual_gate(MutualGateProblem const& problem, Bytes const& g, Bytes const& l, int shift) override
    {
        std::size_t const in = shift * size_of(problem.input);
        std::size_t const out = size_of(problem.output);
        Buffer const from_g(g, in);
        Buffer const from_l(l, in);
        Buffer const y(2 * elements(problem.shape) * out, shift * out);
        require(mutual_gate_cuda(problem, from_g.data(), from_l.data(), y.data(), nullptr));
        return y.written();
    }

    Bytes spatial_gate(SpatialGateProblem const& problem, Bytes const& x, Bytes const& weight, int shift) override
    {
        std::size_t const past = shift * size_of(problem.type);
        Buffer const from(x, past);
        Buffer const weights(weight, past);
        Buffer const y(x.size(), past);
        Buffer const workspace(spatial_gate_workspace(problem), 0);
        require(spatial_gate_cuda(problem, from.data(), weights.data(), y.data(), workspace.data(), nullptr));
        workspace.written();
        return y.written();
    }

    Bytes channel_gate(
        ChannelGateProblem const& problem, Bytes const& x, Bytes const& w1, Bytes const& w2, int shift) override
    {
        std::size_t const past = shift * size_of(problem.type);
        Buffer const from(x, past);
        Buffer const first(w1, past);
        Buffer const second(w2, past);
        Buffer const y(x.size(), past);
        Buffer const workspace(channel_gate_workspace(problem), 0);
        require(channel_gate_cuda(
            problem, from.data(), first.data(), second.data(), y.data(), workspace.data(), nullptr));
        workspace.written();
        return y.written();
    }

    bool has(Layout) const override
    {
        return true;
    }
};

void check_misaligned_blocks_are_refused()
{
    MutualGateProblem problem;
    problem.shape = {1, 32, 2, 2};
    problem.input = Type::kHalf;
    problem.output = Type::kInt8;
    problem.input_layout = Layout::kHwc8;
    problem.output_layout = Layout::kChw32;
    problem.scale_g = 1.0F;
    problem.scale_l = 1.0F;
    Buffer const g(256, 2);
    Buffer const l(256, 0);
    Buffer const y(256, 0);
    CHECK(mutual_gate_cuda(problem, g.data(), l.data(), y.data(), nullptr) == cudaErrorMisalignedAddress);
}

} // namespace

int main()
{
    int devices = 0;
    if (cudaError_t const error = cudaGetDeviceCount(&devices); error != cudaSuccess || devices == 0)
    {
        std::cout << "skipped: no CUDA device here (" << cudaGetErrorString(error) << ")\n";
        return kSkipped;
    }
    Cuda cuda;
    check_mutual_gate(cuda);
    check_spatial_gate(cuda);
    check_channel_gate(cuda);
    check_misaligned_blocks_are_refused();
    return report("CUDA kernels");
}
