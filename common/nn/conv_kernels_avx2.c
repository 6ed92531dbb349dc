#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "common/tensor/simd_avx2.h"

#define ROWS 6 /* 12 sums, 2 vectors, 1 broadcast: 15 of 16 registers */
#define CONV_TABLE conv_avx2
#include "common/nn/conv_kernels.inc"
#else
typedef int conv_avx2_unused;
#endif
