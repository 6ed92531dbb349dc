#include "tools/launch.h"
int launch_slurm(struct launch *l, struct error *err) { (void)l; return error_set(err, TD_EINVAL, "x"); }
int launch_slurm_status(struct launch *l, struct error *err) { (void)l; return error_set(err, TD_EINVAL, "x"); }
int launch_slurm_scale(struct launch *l, struct error *err) { (void)l; return error_set(err, TD_EINVAL, "x"); }
int launch_slurm_stop(struct launch *l, struct error *err) { (void)l; return error_set(err, TD_EINVAL, "x"); }
int launch_slurm_logs(struct launch *l, struct error *err) { (void)l; return error_set(err, TD_EINVAL, "x"); }
