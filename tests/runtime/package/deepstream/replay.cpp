// replay LIBRARY COUNT WIDTH HEIGHT CLASSES THRESHOLD: outputs of one frame from standard input (boxes, scores,
// classes), objects to standard output, a line each.
#include "nvdsinfer_custom_impl.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

int main(int, char **arguments)
{
    void *library = dlopen(arguments[1], RTLD_NOW);
    auto parse = library ? reinterpret_cast<NvDsInferParseCustomFunc>(dlsym(library, "NvDsInferParseIrforge")) : nullptr;
    if (!parse)
        return 2;
    unsigned int const count = std::atoi(arguments[2]), classes = std::atoi(arguments[5]);
    std::vector<float> boxes(4 * count), scores(count);
    std::vector<std::int32_t> numbers(count);
    if (std::fread(boxes.data(), 4, 4 * count, stdin) != 4 * count || std::fread(scores.data(), 4, count, stdin) != count ||
        std::fread(numbers.data(), 4, count, stdin) != count)
        return 3;
    auto layer = [](char const *name, NvDsInferDataType type, unsigned int elements, void *buffer) {
        NvDsInferLayerInfo info{};
        info.dataType = type;
        info.inferDims.numElements = elements;
        info.layerName = name;
        info.buffer = buffer;
        return info;
    };
    std::vector<NvDsInferLayerInfo> layers{layer("classes", INT32, count, numbers.data()),
                                           layer("boxes", FLOAT, 4 * count, boxes.data()),
                                           layer("scores", FLOAT, count, scores.data())};
    NvDsInferNetworkInfo network{static_cast<unsigned int>(std::atoi(arguments[3])),
                                 static_cast<unsigned int>(std::atoi(arguments[4])), 1};
    std::vector<float> thresholds(classes, std::strtof(arguments[6], nullptr));
    std::vector<NvDsInferObjectDetectionInfo> objects;
    if (!parse(layers, network, {classes, thresholds, thresholds}, objects))
        return 4;
    for (auto const &object : objects)
        std::printf("%u %.9g %.9g %.9g %.9g %.9g\n", object.classId, object.left, object.top, object.width, object.height,
                    object.detectionConfidence);
    layers.pop_back();
    return parse(layers, network, {classes, thresholds, thresholds}, objects) ? 5 : 0;
}
