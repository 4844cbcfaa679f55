/* What libirforge_ort.so exports. */
#ifndef IRFORGE_ORT_API_H
#define IRFORGE_ORT_API_H

#include <stdint.h>

#define IRFORGE_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

struct OrtSessionOptions;
struct OrtApiBase;
struct OrtStatus;

/* What SessionOptions.register_custom_ops_library calls. */
IRFORGE_EXPORT struct OrtStatus* RegisterCustomOps(
    struct OrtSessionOptions* options, const struct OrtApiBase* api_base);

/* How often the native kernel of "MutualGate", "QuantizedMutualGate", "SpatialGate" or "ChannelGate" has run in this
 * process, on any device; -1 for any other name. It tells the native op from the function body of the same name. */
IRFORGE_EXPORT int64_t irforge_ort_calls(const char* op);

/* 1 if the library has kernels for CUDAExecutionProvider too, else 0: without them ONNX Runtime would run these nodes on
 * the CPU in the middle of a graph on the GPU. */
IRFORGE_EXPORT int irforge_ort_has_cuda(void);

#ifdef __cplusplus
}
#endif

#endif
