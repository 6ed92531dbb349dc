#include "common/env/stack.h"

#include <string.h>

size_t env_obs_bytes(const struct env_spec *spec)
{
    return spec->obs_type == ENV_OBS_RGB ? spec->obs_dim : spec->obs_dim * sizeof(float);
}

static size_t frames_of(const struct env_spec *spec)
{
    return spec->obs_type == ENV_OBS_RGB ? STACK_FRAMES : 1;
}

size_t stack_bytes(const struct env_spec *spec)
{
    return frames_of(spec) * env_obs_bytes(spec);
}

void stack_push(const struct env_spec *spec, void *seen, const void *obs, bool first)
{
    size_t bytes = env_obs_bytes(spec), older = stack_bytes(spec) - bytes;
    char *frames = seen;

    if (first)
        for (size_t at = 0; at < older; at += bytes)
            memcpy(frames + at, obs, bytes);
    else
        memmove(frames, frames + bytes, older);
    memcpy(frames + older, obs, bytes);
}
