#include "op.h"

namespace irforge::ort
{

void refuse(std::string const& why)
{
    throw Ort::Exception(std::string(why), ORT_INVALID_ARGUMENT);
}

std::string text_of(Shape const& shape)
{
    return std::to_string(shape.batch) + "x" + std::to_string(shape.channels) + "x" + std::to_string(shape.height) + "x"
        + std::to_string(shape.width);
}

TypedDimensions input_dimensions(OrtShapeInferContext* context, std::size_t index)
{
    OrtApi const& api = Ort::GetApi();
    OrtTensorTypeAndShapeInfo* info = nullptr; // the context's own
    Ort::ThrowOnError(api.ShapeInferContext_GetInputTypeShape(context, index, &info));
    TypedDimensions input{ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, {}};
    Ort::ThrowOnError(api.GetTensorElementType(info, &input.type));
    std::size_t count = 0;
    Ort::ThrowOnError(api.GetDimensionsCount(info, &count));
    if (count != 4)
    {
        return input;
    }
    std::int64_t numbers[4];
    char const* names[4];
    Ort::ThrowOnError(api.GetDimensions(info, numbers, count));
    Ort::ThrowOnError(api.GetSymbolicDimensions(info, names, count));
    for (std::size_t i = 0; i < count; ++i)
    {
        bool const named = names[i] != nullptr && names[i][0] != '\0';
        if (!named && numbers[i] < 0)
        {
            input.dimensions.clear();
            return input;
        }
        input.dimensions.push_back({named ? -1 : numbers[i], named ? names[i] : ""});
    }
    return input;
}

// Ort::ShapeInferContext does the same with a number for names that newer versions of ONNX Runtime refuse.
void set_output_dimensions(OrtShapeInferContext* context, TypedDimensions const& output)
{
    OrtApi const& api = Ort::GetApi();
    std::vector<std::int64_t> numbers;
    std::vector<char const*> names;
    for (Dimension const& dimension : output.dimensions)
    {
        numbers.push_back(dimension.number);
        names.push_back(dimension.name.c_str());
    }
    OrtTensorTypeAndShapeInfo* made = nullptr;
    Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&made));
    Ort::TensorTypeAndShapeInfo const info(made);
    Ort::ThrowOnError(api.SetTensorElementType(made, output.type));
    Ort::ThrowOnError(api.SetDimensions(made, numbers.data(), numbers.size()));
    Ort::ThrowOnError(api.SetSymbolicDimensions(made, names.data(), names.size()));
    Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(context, 0, made));
}

Shape shape_of(Ort::ConstValue const& tensor, char const* name)
{
    std::vector<std::int64_t> const shape = tensor.GetTensorTypeAndShapeInfo().GetShape();
    if (shape.size() != 4)
    {
        refuse(std::string(name) + " has " + std::to_string(shape.size())
            + " dimensions; it must have four, N x C x H x W");
    }
    return {shape[0], shape[1], shape[2], shape[3]};
}

} // namespace irforge::ort
