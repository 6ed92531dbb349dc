/* version.h - what this build calls itself in manifests, logs and --version. */
#ifndef TD_UTIL_VERSION_H
#define TD_UTIL_VERSION_H

#define TD_VERSION "0.1.0"

#endif
