#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#include "common/tensor/simd_avx512.h"

#define ROWS 14 /* 28 sums, 2 vectors, 1 broadcast: 31 of 32 registers */
#define CONV_TABLE conv_avx512
#include "common/nn/conv_kernels.inc"
#else
typedef int conv_avx512_unused;
#endif
