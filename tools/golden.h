/*
 * golden.h - replay recorded vectors of the official code through the code that trains and plans.
 *
 * Each function prints one line per quantity and returns TD_OK when every one is within its tolerance,
 * TD_EAGAIN when one is past it (the vectors were read, the numbers differ), or the error that made
 * the file unusable (a sentence is in err).
 */
#ifndef TD_TOOLS_GOLDEN_H
#define TD_TOOLS_GOLDEN_H

#include <stdbool.h>
#include <stdio.h>

#include "common/ckpt/safetensors.h"
#include "common/util/error.h"

#define GOLDEN_DIFFERS TD_EAGAIN

/* Drive learner/schedule.c with stand-ins and compare event by event. */
int golden_schedule(const char *path, FILE *out, struct error *err);

#endif
