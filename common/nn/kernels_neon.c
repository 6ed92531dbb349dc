#if defined(__aarch64__)
#include "common/tensor/simd_neon.h"
#include "common/tensor/simd_math.h"

#define NN_TABLE nn_neon
#include "common/nn/kernels.inc"
#else
typedef int nn_neon_unused;
#endif
