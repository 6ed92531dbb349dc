# checks.sh - sourced by tests/process/*.sh: checks, counted and printed as cmocka does.
#
#   check NAME COMMAND...    one check; if it fails, what the file $out holds is shown
#   totals                   prints the counts, and ends the script with 1 if a check failed
#   require NAME             ends the script now if a check failed: without NAME the rest has no end
# shellcheck shell=bash
passed=0 failed=0

check() {
    local name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not so: $name"; sed 's/^/    /' "$out"; fi
}

totals() {
    [ $passed -gt 0 ] && echo "[  PASSED  ] $passed test(s)."
    [ $failed -gt 0 ] && echo "[  FAILED  ] $failed test(s)."
    exit $((failed > 0))
}

require() { [ $failed = 0 ] || { echo "without $1 the rest is not tried"; totals; }; }
