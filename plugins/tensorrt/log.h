// Where a fault is told, and the wall that keeps exceptions out of TensorRT.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <utility>

namespace irforge::tensorrt
{

// Who tells of a fault.
struct Origin
{
    char const* plugin;
    char const* node = nullptr; // of the network, where known
};

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Writes one line to the logger of the calling thread's builder or runtime; to stderr where TensorRT has given none.
void log_error(Origin const& origin, char const* what) noexcept;

// Runs `body`; an exception becomes one line of the log and `failure`.
template <typename Result, typename Body>
Result guarded(Origin const& origin, Result failure, Body&& body) noexcept
{
    try
    {
        return std::forward<Body>(body)();
    }
    catch (std::exception const& error)
    {
        log_error(origin, error.what());
    }
    catch (...)
    {
        log_error(origin, "unknown exception");
    }
    return failure;
}

} // namespace irforge::tensorrt
