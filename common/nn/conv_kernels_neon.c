#if defined(__aarch64__)
#include "common/tensor/simd_neon.h"

#define ROWS 6 /* 24 registers of sums, 4 of vectors, 1 broadcast: 29 of 32 */
#define CONV_TABLE conv_neon
#include "common/nn/conv_kernels.inc"
#else
typedef int conv_neon_unused;
#endif
