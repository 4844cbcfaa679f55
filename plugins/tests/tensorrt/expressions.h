// TensorRT's dimension expressions, which only TensorRT itself can make, built here to be evaluated.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace irforge::test
{

using Extents = std::map<std::string, std::int64_t>;

class Expressions : public nvinfer1::IExprBuilder
{
public:
    Expressions();
    ~Expressions() noexcept override;

    // "64" is a constant; any other word an extent known only at run time.
    nvinfer1::IDimensionExpr const* parse(std::string const& word);
    nvinfer1::DimsExprs parse(std::vector<std::string> const& words);

    // Throws std::out_of_range for an extent that `extents` does not bind.
    static std::int64_t evaluate(nvinfer1::IDimensionExpr const& expression, Extents const& extents);

private:
    struct Builder;

    std::unique_ptr<Builder> builder_;
};

} // namespace irforge::test
