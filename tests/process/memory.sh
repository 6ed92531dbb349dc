#!/usr/bin/env bash
# A real learner (model_size 5, batches of 256) and its shard of a million walker rows stay under 512 MiB.
# The sanitizers' own memory would count: there a smaller model only has to be measured.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${TD_BUILD:-build/release}
size=5 limit=512
case $build in *san-*) size=1 limit=100000 ;; esac
if line=$("$build/bin/tdmpc2" bench memory --json seconds=0.1 threads=2 model_size=$size | grep '"both'); then
    echo "$line"
    mib=$(sed -E 's/.*"mib":([0-9.]+).*/\1/' <<<"$line")
    # less than the parameters and their moments would mean that nothing was measured
    if awk -v mib="$mib" -v size=$size -v limit=$limit 'BEGIN {exit !(mib > 20 * size && mib < limit)}'; then echo "[  PASSED  ] 1 test(s)."; exit 0; fi
fi
echo "[  FAILED  ] 1 test(s)."
exit 1
