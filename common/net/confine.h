/*
 * confine.h - what each daemon keeps of files, sockets and system calls, and gives up the rest (`sandbox=`).
 *
 *   role      writes                          reads beside the system's libraries    sockets      new code
 *   learner   run directory, ipc folder       keys, a plugin's folder, checkpoint=   tcp: bind=   no
 *             with seed_data= the replay      seed_data=
 *   shard     store, run/ of the run, ipc     keys                                   tcp: bind=   no
 *   actor     run/, videos/, ipc, GPU         keys, models, a plugin's folder        all          yes (GL drivers)
 *
 * No role starts programs itself, traces, mounts, or changes users; ipc alone where no tcp was asked for.
 * Children come from the spawner and confine themselves, environments in Python not at all.
 *
 * sandbox=auto does what the kernel offers and says in one line what is in force; off does nothing; require
 * ends with a sentence where something is lacking. With a library preloaded (LD_PRELOAD) auto does nothing:
 * nobody knows what that needs.
 *
 * Thread:  the main thread; the order is start, files, calls.
 */
#ifndef TD_NET_CONFINE_H
#define TD_NET_CONFINE_H

#include "common/util/config.h"
#include "common/util/sandbox.h"

/* First thing once the options are known: the spawner. TD_OK or, with require, TD_ESETUP. */
int confine_start(const struct config *config, int argc, char **argv, struct error *err);

/*
 * What a role keeps; the folders are made if need be. run_dir "": none; store: the shard's directory.
 * tcp: it listens or connects beyond this machine.
 */
void confine_learner(struct sandbox *keep, const struct config *config, const char *run_dir);
void confine_shard(struct sandbox *keep, const struct config *config, const char *run_dir, const char *store);
void confine_actor(struct sandbox *keep, const struct config *config);

/* Before the second thread; then, with all there are, at the end of start-up. TD_OK or TD_ESETUP (require). */
int confine_files(const struct sandbox *keep, const struct config *config, struct error *err);
int confine_calls(const struct sandbox *keep, const struct config *config, struct error *err);

#endif
