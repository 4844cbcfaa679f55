// IRFORGE_CLONES compiles a function for AVX2 beside the baseline; the loader picks what the processor has. AVX2 brings
// no fused multiply-add with it and contraction is off (CMakeLists.txt), so both give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define IRFORGE_CLONES __attribute__((target_clones("default", "avx2")))
#else
#define IRFORGE_CLONES
#endif
