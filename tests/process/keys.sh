#!/usr/bin/env bash
# `tdmpc2 keys`: nothing that was asked for is dropped in silence, what was revoked stays so until it is named,
# and the list tells which key file here is of no use.
set -u
bin=${TD_BUILD:-build/release}/bin
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# says NAME CODE TEXT WORD...
says() {
    local name=$1 wanted=$2 text=$3 out code; shift 3
    out=$("$bin/tdmpc2" keys "$work/keys" "$@" 2>&1); code=$?
    if [ $code = "$wanted" ] && [[ $out == *"$text"* ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "$name: exit $code, printed: $out"
    fi
}
is() { if [ "$2" "$3" "$4" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1"; fi; }

says "new keys" 0 "made actor-2" actors=3
says "actors= beside revoke=" 2 "revoke= stands alone" actors=4 revoke=actor-1
is "the actor was revoked all the same" "$(grep -c '^actor-1 ' "$work/keys/allowed")" = 1
is "or others were made" "$(ls "$work"/keys/actor-*.key | wc -l)" = 3
says "actors= beside actor=" 2 "two commands" actors=4 actor=1
says "list beside others" 2 "list stands alone" list actors=4
says "revoked" 0 "revoked actor-1" revoke=actor-1
says "revoked" 0 "revoked viewer" revoke=viewer
says "a revoked key stays out" 0 "actor-1 was revoked and is left out" actors=3
is "but it was made" "$(ls "$work/keys" | grep -c '^actor-1.key$\|^viewer.key$')" = 0
is "or listed" "$(grep -c '^actor-1 \|^viewer ' "$work/keys/allowed")" = 0
says "one that is named" 0 "made actor-1" actor=1
says "and any other" 0 "made viewer" make=viewer
says "then all are there" 0 "" actors=3
is "not all keys are there" "$(grep -c '^[a-z]' "$work/keys/allowed")" = 7
is "the note of what was revoked stayed" "$(cat "$work/keys/revoked")" = ""
echo actor-x >"$work/keys/revoked"
says "a list of the revoked that is none" 2 '"actor-x" is no name' actors=3
says "a key is revoked all the same" 2 "may make it again" revoke=actor-1
is "it is still listed" "$(grep -c '^actor-1 ' "$work/keys/allowed")" = 0
head -c 3000 /dev/zero >"$work/keys/revoked"
says "zeros" 2 "more than names" actors=3
rm "$work/keys/revoked"; says "with the list gone" 0 "made actor-1" actors=3
chmod 644 "$work/keys/actor-0.key"; echo junk >"$work/keys/actor-2.key"; chmod 600 "$work/keys/actor-2.key"
says "a key others may read" 0 "UNSAFE" list
says "a damaged key" 0 "UNUSABLE" list
is "and only these" "$("$bin/tdmpc2" keys "$work/keys" list | grep -c 'key here$')" = 5

[ $failed = 0 ] && echo "[  PASSED  ] $passed test(s)." || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
