#include "common/tensor/isa.h"

#include <stdatomic.h>

#include "common/util/error.h"

static atomic_int forced = -1;

static int has(enum isa isa)
{
    switch (isa) {
    case ISA_PLAIN:
        return 1;
#if defined(__x86_64__)
    case ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#elif defined(__aarch64__)
    case ISA_NEON:
        return 1;
#endif
    default:
        return 0;
    }
}

enum isa isa_best(void)
{
    int isa = ISA_COUNT - 1;

    while (!has((enum isa)isa))
        isa--;
    return (enum isa)isa;
}

enum isa isa_current(void)
{
    int isa = atomic_load_explicit(&forced, memory_order_relaxed);

    if (isa < 0) {
        isa = (int)isa_best();
        atomic_store_explicit(&forced, isa, memory_order_relaxed);
    }
    return (enum isa)isa;
}

const char *isa_name(enum isa isa)
{
    static const char *const names[ISA_COUNT] = {"plain", "neon", "avx2", "avx512"};

    return names[isa];
}

int isa_force(enum isa isa)
{
    if (!has(isa))
        return TD_EINVAL;
    atomic_store_explicit(&forced, (int)isa, memory_order_relaxed);
    return TD_OK;
}
