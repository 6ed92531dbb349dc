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
    for folder in deploy/ tests/ $(find common learner actor proto tools \( -name '*.c' -o -name '*.proto' \) -printf '%h\n' | sort -u); do
        [ -s "$folder/README.md" ] || { echo "$folder has no README.md"; missing=1; }
    done
    return $missing
}
check 'a folder has no README' folders_have_readmes

pictures_are_shown() {
    local missing=0 picture
    for picture in docs/pictures/*; do
        grep -qF "](pictures/${picture##*/})" docs/*.md || { echo "$picture is shown nowhere"; missing=1; }
    done
    return $missing
}
check 'a picture of the documents is shown nowhere' pictures_are_shown

# Each program and each command has a page of its own, with its own usage.
pages_are_whole() {
    local missing=0 command page
    [ -z "$("$bin/tdmpc2" manual pages | sort | uniq -d)" ] || { echo 'two pages have one name'; missing=1; }
    for command in $(sed -n 's/^COMMAND(\([a-z]*\),.*/\1/p' tools/commands.def); do
        for page in tdmpc2-$command tdmpc2-$command-command ''; do
            [ -n "$page" ] || { echo "tdmpc2 $command has no manual page"; missing=1; break; }
            "$bin/tdmpc2" manual "$page" 2>/dev/null | grep "^\\\\fBtdmpc2 $command\\b" >/dev/null && break
        done
    done
    return $missing
}
check 'a command has no manual page' pages_are_whole

echo "[  PASSED  ] $good test(s)."
[ $bad -eq 0 ] || { echo "[  FAILED  ] $bad test(s)."; exit 1; }
