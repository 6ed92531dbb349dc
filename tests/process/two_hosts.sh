#!/usr/bin/env bash
# The demonstration of two hosts: keys on, the learner dies on one and comes back on the other.
bin=${TD_BUILD:-build/release}/bin
if [ "$(id -u)" -ne 0 ] || ! command -v ip >/dev/null || ! command -v sshd >/dev/null || ! { ip netns add tdprobe$$ && ip netns del tdprobe$$; } 2>/dev/null; then
    echo 'skipped: needs root, network namespaces and the package openssh-server'
    echo '[==========] 1 test(s) run.'; echo '[  PASSED  ] 0 test(s).'; echo '[  SKIPPED ] 1 test(s).'
    exit 0
fi
deploy/examples/two-hosts "$bin" && { echo '[==========] 1 test(s) run.'; echo '[  PASSED  ] 1 test(s).'; exit 0; }
echo '[  FAILED  ] 1 test(s).'
exit 1
