// Boxes of an irforge detector for Gst-nvinfer: boxes [k, 4] (left, top, right, bottom in network pixels),
// scores [k] and classes [k], highest score first.

#include "nvdsinfer_custom_impl.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <vector>

namespace {

const NvDsInferLayerInfo *find(std::vector<NvDsInferLayerInfo> const &layers, char const *name, NvDsInferDataType type)
{
    for (auto const &layer : layers)
        if (layer.layerName && std::strcmp(layer.layerName, name) == 0 && layer.dataType == type && layer.buffer)
            return &layer;
    std::cerr << "irforge: the engine has no output '" << name << "' of the type that its package has\n";
    return nullptr;
}

}  // namespace

extern "C" bool NvDsInferParseIrforge(std::vector<NvDsInferLayerInfo> const &outputLayersInfo,
                                      NvDsInferNetworkInfo const &networkInfo,
                                      NvDsInferParseDetectionParams const &detectionParams,
                                      std::vector<NvDsInferObjectDetectionInfo> &objectList)
{
    auto const *boxLayer = find(outputLayersInfo, "boxes", FLOAT);
    auto const *scoreLayer = find(outputLayersInfo, "scores", FLOAT);
    auto const *classLayer = find(outputLayersInfo, "classes", INT32);
    if (!boxLayer || !scoreLayer || !classLayer)
        return false;
    unsigned int const count = scoreLayer->inferDims.numElements;
    if (boxLayer->inferDims.numElements != 4 * count || classLayer->inferDims.numElements != count)
        return false;
    auto const *boxes = static_cast<float const *>(boxLayer->buffer);
    auto const *scores = static_cast<float const *>(scoreLayer->buffer);
    auto const *classes = static_cast<std::int32_t const *>(classLayer->buffer);
    float const width = static_cast<float>(networkInfo.width), height = static_cast<float>(networkInfo.height);

    for (unsigned int k = 0; k < count; ++k) {
        auto const number = static_cast<unsigned int>(classes[k]);
        if (number >= detectionParams.numClassesConfigured)
            continue;
        // Strictly above, as everywhere in irforge; a NaN is not.
        if (!(scores[k] > detectionParams.perClassPreclusterThreshold[number]))
            continue;
        float const left = std::clamp(boxes[4 * k], 0.0f, width), right = std::clamp(boxes[4 * k + 2], 0.0f, width);
        float const top = std::clamp(boxes[4 * k + 1], 0.0f, height), bottom = std::clamp(boxes[4 * k + 3], 0.0f, height);
        if (!(right > left && bottom > top))
            continue;
        NvDsInferObjectDetectionInfo object{};
        object.classId = number;
        object.left = left;
        object.top = top;
        object.width = right - left;
        object.height = bottom - top;
        object.detectionConfidence = scores[k];
        objectList.push_back(object);
    }
    return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseIrforge);
