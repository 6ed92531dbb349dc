/* checkpoint.h - the parts of `tdmpc2 checkpoint`. */
#ifndef TD_TOOLS_CHECKPOINT_H
#define TD_TOOLS_CHECKPOINT_H

#include "common/model/dims.h"

/* Write the model of a *.pt, a safetensors file, a checkpoint or a run to `to`, *.pt or *.safetensors, which must be new. */
int checkpoint_convert(const char *from, const char *to, struct error *err);

/* A line of the model's sizes. */
void checkpoint_describe(const struct model_dims *dims);

#endif
