/*
 * probe.h - can this machine reproduce recorded trajectories to the bit?
 *
 * MuJoCo's doubles depend on the C library's sin, cos, exp and so on, whose last bits depend on its
 * version and on whether the processor fuses multiply and add. The recordings were made on x86-64
 * with FMA and glibc 2.36. Elsewhere contact dynamics drift apart step by step: only one step from
 * a known state can be compared, within 1e-6.
 */
#ifndef TD_ENV_PROBE_H
#define TD_ENV_PROBE_H

#include <stdbool.h>

#include "common/util/error.h"

/* Evaluate the functions at fixed points and compare every bit; if one differs, `why` says so. */
bool probe_exact(struct error *why);

#endif
