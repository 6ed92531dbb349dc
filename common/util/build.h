/*
 * build.h - which build of the program this is and what it runs on: what the bits of a run may depend on
 * beside its options.
 *
 * Thread:  any.
 */
#ifndef TD_UTIL_BUILD_H
#define TD_UTIL_BUILD_H

#include "common/util/error.h"

#define BUILD_TEXT_MAX 64

/*
 * The linker's build id of an executable (40 hexadecimal digits as a rule) and the compiler's version.
 * TD_OK; TD_ENOTFOUND: it cannot be read or has none, and out is "unknown".
 */
int build_of(const char *path, char out[BUILD_TEXT_MAX]);

/* "glibc 2.36": its libm is part of every sine of an environment. */
void build_libc(char out[BUILD_TEXT_MAX]);

/* "x86_64" */
void build_machine(char out[BUILD_TEXT_MAX]);

#endif
