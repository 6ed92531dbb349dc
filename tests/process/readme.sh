#!/usr/bin/env bash
# The README's table of options is the one the program has, and its programs and targets exist.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${TD_BUILD:-build/release}/bin
good=0 bad=0
check() { # WHAT COMMAND...
    local what=$1; shift
    if "$@"; then good=$((good + 1)); else echo "README.md: $what"; bad=$((bad + 1)); fi
}

table_is_current() {
    diff <(sed -n '/^<!-- made by .* -->$/,/^<!-- end -->$/p' README.md | sed '1d;$d') <("$bin/tdmpc2" train --markdown)
}
check 'the table of options differs from `tdmpc2 train --markdown`' table_is_current

targets_exist() {
    local target missing=0
    for target in $(grep -oE '\bmake [a-z-]+' README.md | awk '{print $2}' | sort -u); do
        grep -qE "^([a-z-]+ )*$target( [a-z-]+)*:" Makefile || { echo "make $target does not exist"; missing=1; }
    done
    return $missing
}
check 'names a target that the Makefile does not have' targets_exist

commands_exist() {
    local command missing=0
    for command in $(grep -oE '^tdmpc2 [a-z]+|`tdmpc2 [a-z]+' README.md | awk '{print $2}' | sort -u); do
        grep -q "COMMAND($command," tools/commands.def || { echo "tdmpc2 $command does not exist"; missing=1; }
    done
    return $missing
}
check 'names a command that tdmpc2 does not have' commands_exist

folders_have_readmes() {
    local missing=0 folder
    for folder in common/*/ learner/ learner/replay/ actor/ proto/ tools/ deploy/ tests/; do
        [ -s "$folder/README.md" ] || { echo "$folder has no README.md"; missing=1; }
    done
    return $missing
}
check 'a folder has no README' folders_have_readmes

echo "[  PASSED  ] $good test(s)."
[ $bad -eq 0 ] || { echo "[  FAILED  ] $bad test(s)."; exit 1; }
