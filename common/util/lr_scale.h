/*
 * lr_scale.h - the option lr_scale: what the learning rate of each part of the model is multiplied by.
 *
 *   lr_scale=encoder:0.1,dynamics:1,pi:0      parts that are not named: 1
 *
 * Thread:  any.
 */
#ifndef TD_UTIL_LR_SCALE_H
#define TD_UTIL_LR_SCALE_H

#include "common/util/error.h"

/* The parts in their order in memory (model's enum model_part), as the reference names them. */
#define LR_SCALE_PARTS 7
#define LR_SCALE_MAX   1000.0

/* text into scale [LR_SCALE_PARTS]. TD_OK, or TD_EINVAL with the sentence. */
int lr_scale_parse(const char *text, double scale[LR_SCALE_PARTS], struct error *err);

#endif
