/*
 * isa.h - which instruction set the vector kernels run on.
 *
 * Chosen once from the CPU; the same program runs on any. PLAIN is ordinary C: the fallback and the
 * oracle of the tests. Results differ in the last bits between paths, so manifests record the name.
 */
#ifndef TD_TENSOR_ISA_H
#define TD_TENSOR_ISA_H

enum isa {
    ISA_PLAIN,
    ISA_NEON,
    ISA_AVX2,   /* with FMA */
    ISA_AVX512, /* F, BW, DQ, VL */
    ISA_COUNT,
};

/* The widest path this CPU has and this program was built with. */
enum isa isa_best(void);

/* The path in use: isa_best() unless forced. */
enum isa isa_current(void);

/* "plain", "neon", "avx2", "avx512". */
const char *isa_name(enum isa isa);

/*
 * Use another path from now on (tests, benchmarks); call while no kernel is running.
 * Returns TD_OK, or TD_EINVAL when this CPU or build does not have it.
 */
int isa_force(enum isa isa);

#endif
