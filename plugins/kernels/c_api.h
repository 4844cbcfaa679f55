/* The kernels for callers without C++, such as Python's ctypes: libirforge_cpu.so and libirforge_kernels.so (CUDA).
 *
 * A function that computes returns 0; IRFORGE_REFUSED where the problem cannot be computed, and then
 * irforge_*_refusal of the same library says why; otherwise the cudaError_t of CUDA, which irforge_cuda_error explains.
 */
#ifndef IRFORGE_C_API_H
#define IRFORGE_C_API_H

#include <stddef.h>
#include <stdint.h>

#define IRFORGE_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum irforge_type
{
    IRFORGE_FLOAT32 = 0,
    IRFORGE_FLOAT16 = 1,
    IRFORGE_INT8 = 2
};

enum irforge_layout
{
    IRFORGE_LINEAR = 0, /* N, C, H, W */
    IRFORGE_HWC8 = 1,   /* N, H, W, C with C a multiple of 8 */
    IRFORGE_CHW32 = 2   /* N, C/32, H, W, 32 with C a multiple of 32 */
};

enum
{
    IRFORGE_REFUSED = -1
};

/* Y (N x 2C x H x W) = concat over channels of [G * sigmoid(L) ; L * sigmoid(G)], computed in FP32 and rounded once. An
 * int8 Y holds round-half-to-even(value / scale) of its half, saturated to -128..127. */
typedef struct irforge_mutual_gate
{
    int64_t batch, channels, height, width; /* of G and of L */
    int32_t input_type;                     /* enum irforge_type: float32 or float16 */
    int32_t output_type;
    int32_t input_layout; /* enum irforge_layout; on the CPU linear */
    int32_t output_layout;
    float scale_g; /* int8 output only: of G * sigmoid(L) */
    float scale_l; /* int8 output only: of L * sigmoid(G) */
} irforge_mutual_gate;

/* Y = X * sigmoid(conv(concat[mean over channels of X ; max over channels of X], W)), computed in FP32 and rounded
 * once. W is 1 x 2 x k x k, zero padding k/2; X, W and Y have one type. */
typedef struct irforge_spatial_gate
{
    int64_t batch, channels, height, width; /* of X and of Y */
    int32_t type;                           /* enum irforge_type: float32 or float16 */
    int32_t layout;                         /* enum irforge_layout; on the CPU linear */
    int32_t kernel;                         /* k: odd, at most 15 */
} irforge_spatial_gate;

/* Y = X * sigmoid(m(mean over the map of X) + m(maximum over the map of X)), m(v) = W2 relu(W1 v), computed in FP32 and
 * rounded once. W1 is h x C x 1 x 1, W2 is C x h x 1 x 1; X, W1, W2 and Y have one type. */
typedef struct irforge_channel_gate
{
    int64_t batch, channels, height, width; /* of X and of Y */
    int32_t type;                           /* enum irforge_type: float32 or float16 */
    int32_t layout;                         /* enum irforge_layout, of X and Y; on the CPU linear */
    int64_t hidden;                         /* h */
} irforge_channel_gate;

/* Both libraries. Why this library cannot compute the problem, in one line; NULL if it can. */
IRFORGE_EXPORT const char* irforge_mutual_gate_refusal(const irforge_mutual_gate* problem);
IRFORGE_EXPORT const char* irforge_spatial_gate_refusal(const irforge_spatial_gate* problem);
IRFORGE_EXPORT const char* irforge_channel_gate_refusal(const irforge_channel_gate* problem);

/* libirforge_cpu.so. Pointers are to host memory. */
IRFORGE_EXPORT int irforge_mutual_gate_cpu(
    const irforge_mutual_gate* problem, const void* g, const void* l, void* y);
IRFORGE_EXPORT int irforge_spatial_gate_cpu(
    const irforge_spatial_gate* problem, const void* x, const void* weight, void* y);
IRFORGE_EXPORT int irforge_channel_gate_cpu(
    const irforge_channel_gate* problem, const void* x, const void* w1, const void* w2, void* y);

/* libirforge_kernels.so. Pointers are to device memory, `stream` is a cudaStream_t; nothing waits for the result.
 * `workspace` has irforge_*_gate_workspace(problem) bytes and is 16-byte aligned. */
IRFORGE_EXPORT int irforge_mutual_gate_cuda(
    const irforge_mutual_gate* problem, const void* g, const void* l, void* y, void* stream);
IRFORGE_EXPORT int irforge_spatial_gate_cuda(const irforge_spatial_gate* problem, const void* x, const void* weight,
    void* y, void* workspace, void* stream);
IRFORGE_EXPORT size_t irforge_spatial_gate_workspace(const irforge_spatial_gate* problem);
IRFORGE_EXPORT int irforge_channel_gate_cuda(const irforge_channel_gate* problem, const void* x, const void* w1,
    const void* w2, void* y, void* workspace, void* stream);
IRFORGE_EXPORT size_t irforge_channel_gate_workspace(const irforge_channel_gate* problem);
IRFORGE_EXPORT const char* irforge_cuda_error(int code);

#ifdef __cplusplus
}
#endif

#endif
