#include "common/nn/kernels.h"

#include "common/tensor/isa.h"

const struct nn_kernels *nn_kernels(void)
{
    switch (isa_current()) {
#if defined(__x86_64__)
    case ISA_AVX512:
        return &nn_avx512;
    case ISA_AVX2:
        return &nn_avx2;
#elif defined(__aarch64__)
    case ISA_NEON:
        return &nn_neon;
#endif
    default:
        return &nn_plain;
    }
}
