#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "common/tensor/simd_avx2.h"
#include "common/tensor/simd_math.h"

#define VEC_TABLE vec_avx2
#include "common/tensor/vec_kernels.inc"
#else
typedef int vec_avx2_unused;
#endif
