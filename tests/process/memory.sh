#!/usr/bin/env bash
# A real learner (model_size 5, batches of 256) that publishes and writes checkpoints, with its shard of a million walker
# rows, stays under 1.15 times what an update needs: parameters, targets, moments, gradients, what the batch leaves behind.
# The sanitizers' own memory would count: there a smaller model only has to be measured.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${TD_BUILD:-build/release}
size=5 share=1.15
case $build in *san-*) size=1 share=100000 ;; esac
if lines=$("$build/bin/tdmpc2" bench memory --json seconds=0.1 threads=2 model_size=$size); then
    echo "$lines"
    mib() { grep "\"variant\":\"$1" <<<"$lines" | sed -E 's/.*"mib":([0-9.]+).*/\1/'; }
    # less than parameters and moments would mean that nothing was measured
    if awk -v mib="$(mib both)" -v must="$(mib numbers)" -v size=$size -v share=$share \
        'BEGIN {exit !(mib > 15 * size && must > 15 * size && mib < share * must)}'; then echo "[  PASSED  ] 1 test(s)."; exit 0; fi
fi
echo "[  FAILED  ] 1 test(s)."
exit 1
