#include "device.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace irforge::test
{

namespace
{

constexpr std::size_t kGuardBytes = 512;
constexpr int kGuard = 0xA5;

void* allocate(std::size_t bytes)
{
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes), "cudaMalloc");
    return memory;
}

// A non-blocking stream does not wait for what the default one still has to do.
void settle()
{
    require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

} // namespace

void require(cudaError_t status, char const* what)
{
    if (status != cudaSuccess)
    {
        throw std::runtime_error(std::string{what} + ": " + cudaGetErrorString(status));
    }
}

Stream::Stream()
{
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

Stream::~Stream()
{
    cudaStreamDestroy(stream_);
}

cudaStream_t Stream::get() const
{
    return stream_;
}

void Stream::wait() const
{
    require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

Buffer::Buffer(std::size_t bytes)
    : bytes_{bytes}
    , memory_{allocate(bytes + kGuardBytes), cudaFree}
{
    require(cudaMemset(memory_.get(), kGuard, bytes_ + kGuardBytes), "cudaMemset");
    settle();
}

Buffer::Buffer(std::vector<std::byte> const& content)
    : Buffer{content.size()}
{
    require(cudaMemcpy(memory_.get(), content.data(), bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
    settle();
}

void* Buffer::get() const
{
    return memory_.get();
}

std::vector<std::byte> Buffer::download() const
{
    std::vector<std::byte> content(bytes_ + kGuardBytes);
    require(cudaMemcpy(content.data(), memory_.get(), content.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    auto const guard = content.begin() + static_cast<std::ptrdiff_t>(bytes_);
    if (!std::all_of(guard, content.end(), [](std::byte byte) { return byte == std::byte{kGuard}; }))
    {
        throw std::runtime_error("a kernel wrote past the end of its output");
    }
    content.resize(bytes_);
    return content;
}

} // namespace irforge::test
