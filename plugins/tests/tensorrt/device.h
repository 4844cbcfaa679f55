// CUDA memory and streams with owners; every failure throws std::runtime_error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace irforge::test
{

void require(cudaError_t status, char const* what);

class Stream
{
public:
    Stream();
    ~Stream();
    Stream(Stream const&) = delete;
    Stream& operator=(Stream const&) = delete;

    cudaStream_t get() const;
    void wait() const;

private:
    cudaStream_t stream_ = nullptr;
};

// Device memory with a guard behind it, so that a write past the end is noticed.
class Buffer
{
public:
    explicit Buffer(std::size_t bytes);
    explicit Buffer(std::vector<std::byte> const& content);

    void* get() const;
    // Throws where the guard was written to.
    std::vector<std::byte> download() const;

private:
    std::size_t bytes_;
    std::unique_ptr<void, cudaError_t (*)(void*)> memory_;
};

} // namespace irforge::test
