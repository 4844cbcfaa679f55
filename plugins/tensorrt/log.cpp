#include "log.h"

#include <array>
#include <atomic>
#include <cstdio>

namespace irforge::tensorrt
{

namespace
{

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* find_logger() noexcept
{
    try
    {
        auto* const finder = logger_finder.load();
        return finder == nullptr ? nullptr : finder->findLogger();
    }
    catch (...)
    {
        return nullptr;
    }
}

} // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept
{
    logger_finder = finder;
}

void log_error(Origin const& origin, char const* what) noexcept
{
    // A fixed buffer, because memory may be what has run out.
    std::array<char, 1024> line{};
    if (origin.node == nullptr)
    {
        std::snprintf(line.data(), line.size(), "irforge %s: %s", origin.plugin, what);
    }
    else
    {
        std::snprintf(line.data(), line.size(), "irforge %s '%s': %s", origin.plugin, origin.node, what);
    }
    if (auto* const logger = find_logger(); logger != nullptr)
    {
        logger->log(nvinfer1::ILogger::Severity::kERROR, line.data());
    }
    else
    {
        std::fprintf(stderr, "%s\n", line.data());
    }
}

} // namespace irforge::tensorrt
