#include "expressions.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <limits>
#include <utility>

namespace irforge::test
{

using nvinfer1::DimensionOperation;
using nvinfer1::IDimensionExpr;

namespace
{

using Value = std::function<std::int64_t(Extents const&)>;

class Expression final : public IDimensionExpr
{
public:
    Expression(bool constant, Value value)
        : impl_{constant, std::move(value)}
    {
        mImpl = &impl_;
    }

    std::int64_t evaluate(Extents const& extents) const
    {
        return impl_.value(extents);
    }

private:
    struct Impl final : nvinfer1::apiv::VDimensionExpr
    {
        Impl(bool is_constant, Value value_of)
            : constant{is_constant}
            , value{std::move(value_of)}
        {
        }

        bool isConstant() const override
        {
            return constant;
        }
        std::int64_t getConstantValue() const override
        {
            return constant ? value({}) : std::numeric_limits<std::int64_t>::min();
        }
        bool isSizeTensor() const override
        {
            return false;
        }

        bool constant;
        Value value;
    };

    Impl impl_;
};

Expression const& ours(IDimensionExpr const& expression)
{
    return static_cast<Expression const&>(expression);
}

std::int64_t floor_div(std::int64_t a, std::int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

std::function<std::int64_t(std::int64_t, std::int64_t)> meaning(DimensionOperation operation)
{
    switch (operation)
    {
    case DimensionOperation::kSUM: return std::plus<>{};
    case DimensionOperation::kPROD: return std::multiplies<>{};
    case DimensionOperation::kMAX: return [](std::int64_t a, std::int64_t b) { return std::max(a, b); };
    case DimensionOperation::kMIN: return [](std::int64_t a, std::int64_t b) { return std::min(a, b); };
    case DimensionOperation::kSUB: return std::minus<>{};
    case DimensionOperation::kEQUAL: return std::equal_to<>{};
    case DimensionOperation::kLESS: return std::less<>{};
    case DimensionOperation::kFLOOR_DIV: return floor_div;
    case DimensionOperation::kCEIL_DIV: return [](std::int64_t a, std::int64_t b) { return -floor_div(-a, b); };
    }
    return nullptr;
}

} // namespace

struct Expressions::Builder final : nvinfer1::apiv::VExprBuilder
{
    IDimensionExpr const* keep(bool constant, Value value)
    {
        return kept.emplace_back(std::make_unique<Expression>(constant, std::move(value))).get();
    }

    IDimensionExpr const* constant(std::int64_t value) override
    {
        return keep(true, [value](Extents const&) { return value; });
    }

    IDimensionExpr const* operation(
        DimensionOperation operation, IDimensionExpr const& first, IDimensionExpr const& second) override
    {
        auto const apply = meaning(operation);
        if (!apply)
        {
            return nullptr;
        }
        return keep(first.isConstant() && second.isConstant(),
            [apply, &first = ours(first), &second = ours(second)](Extents const& extents)
            { return apply(first.evaluate(extents), second.evaluate(extents)); });
    }

    IDimensionExpr const* declareSizeTensor(std::int32_t, IDimensionExpr const&, IDimensionExpr const&) override
    {
        return nullptr;
    }

    std::vector<std::unique_ptr<Expression>> kept;
};

Expressions::Expressions()
    : builder_{std::make_unique<Builder>()}
{
    mImpl = builder_.get();
}

Expressions::~Expressions() noexcept = default;

IDimensionExpr const* Expressions::parse(std::string const& word)
{
    if (std::isdigit(static_cast<unsigned char>(word.front())) != 0)
    {
        return builder_->constant(std::stoll(word));
    }
    return builder_->keep(false, [word](Extents const& extents) { return extents.at(word); });
}

nvinfer1::DimsExprs Expressions::parse(std::vector<std::string> const& words)
{
    nvinfer1::DimsExprs dims{};
    for (std::string const& word : words)
    {
        dims.d[dims.nbDims++] = parse(word);
    }
    return dims;
}

std::int64_t Expressions::evaluate(IDimensionExpr const& expression, Extents const& extents)
{
    return ours(expression).evaluate(extents);
}

} // namespace irforge::test
