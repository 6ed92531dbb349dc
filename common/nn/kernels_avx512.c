#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#include "common/tensor/simd_avx512.h"
#include "common/tensor/simd_math.h"

#define NN_TABLE nn_avx512
#include "common/nn/kernels.inc"
#else
typedef int nn_avx512_unused;
#endif
