#if defined(__aarch64__)
#include "common/tensor/simd_neon.h"
#include "common/tensor/simd_math.h"

#define VEC_TABLE vec_neon
#include "common/tensor/vec_kernels.inc"
#else
typedef int vec_neon_unused;
#endif
