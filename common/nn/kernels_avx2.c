#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "common/tensor/simd_avx2.h"
#include "common/tensor/simd_math.h"

#define NN_TABLE nn_avx2
#include "common/nn/kernels.inc"
#else
typedef int nn_avx2_unused;
#endif
