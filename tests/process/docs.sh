#!/usr/bin/env bash
# The documents: every command in them runs, or at least exists as it is written; links lead somewhere. With TD_DOCS=all
# the long ones too, and manual pages and site if they were made. tests/support/docs.py has the rules.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${TD_BUILD:-build/release}/bin
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
out=$work/out
. tests/support/checks.sh

# First the checker itself: a page with one mistake of each kind, and all of them must be found.
mkdir "$work/pages"
cat >"$work/pages/planted.md" <<'END'
# Planted

[nothing](there.md), [no heading](planted.md#nowhere), `num_elite=3`, `make tests-all`, `tdmpc2 stat`, `deploy/nothing`.

```
tdmpc2 train stepz=5
```

<!-- docs-test: elsewhere: it is only looked at -->
```sh
tdmpc2 train task=walker-wlk num_elites=9999999 obs=rgb lockstep=maybe
tdmpc2 replay inf DIR; tdmpc2 eval --josn
make everything PREFX=/usr
frobnicate now
```

<!-- docs-test: elsewhere -->
```sh
true
```

```sh
echo good; echo "the run is done"
```

<!-- docs-test: says -->
```text
the ... is not done
```

<!-- docs-test: in the source -->
```text
agent steps ... that no program of ours says
```

<!-- docs-test: exits 2 -->
```sh
true
```

```yaml
name: cluster
options: {task: walker-walk, num_elits: 64}
actors:
  count: 2
  options:
    envs: 65
```

```yaml
task: walker-wak
stps: 5
```
END
TD_DOCS='' python3 tests/support/docs.py "$bin" "$work/pages/planted.md" >"$out" 2>&1; code=$?
finds() { grep -qF -- "$1" "$out"; }
check 'mistakes fail' [ $code = 1 ]
for text in 'dead link: there.md' 'has no heading #nowhere' 'there is no option num_elite=' 'there is no make tests-all' \
        'there is no command tdmpc2 stat' 'there is no deploy/nothing' 'knows no option stepz=' 'there is no task walker-wlk' \
        'num_elites=9999999: not in' 'lockstep=maybe: neither' 'tdmpc2 replay knows no inf' 'tdmpc2 eval has no --josn' \
        'there is no make everything' 'no PREFX=' 'frobnicate: no command' 'elsewhere without a reason' \
        'there is no option num_elits:' 'envs=65: not in' 'there is no task walker-wak' 'there is no option stps:' \
        'is not said: the ... is not done' 'no program says: that no program of ours says' 'exit 0 instead of 2'; do
    check "found: $text" finds "$text"
done
printf '# Fails\n\n```sh\necho before\ncat nothing.txt\necho after\n```\n' >"$work/pages/fails.md"
python3 tests/support/docs.py "$bin" "$work/pages/fails.md" >"$out" 2>&1
check 'a block that fails, fails' [ $? = 1 ]
check 'with what it said' finds 'nothing.txt'
check 'and ends there' [ "$(grep -c '| after' "$out")" = 0 ]
printf '# Good\n\n[itself](#good)\n\n```sh\nx=$(tdmpc2 --help | head -n 1)\ncat <<END >file\nif nothing\nEND\n[ -n "$x" ] && test -s file\n```\n' >"$work/pages/good.md"
python3 tests/support/docs.py "$bin" "$work/pages/good.md" >"$out" 2>&1
check 'a good page is good' [ $? = 0 ]

mapfile -t folders < <(find actor common deploy learner proto tests tools -name README.md | LC_ALL=C sort)
python3 tests/support/docs.py "$bin" docs/*.md README.md SECURITY.md RELIABILITY.md "${folders[@]}" >"$out" 2>&1
check 'the documents' [ $? = 0 ]
grep -E 'not run here|pages, ' "$out"

if [ "${TD_DOCS:-}" = all ]; then
    # what `make docs man` made
    for page in build/man/*.1; do
        # that they name each other and no section of Debian is all that it may say
        mandoc -Tlint -Wwarning "$page" >"$out" 2>&1
        check "$page is sound" [ ! -s "$out" ]
    done
    for page in docs/*.md; do
        name=$(basename "$page" .md)
        check "the site has $name" [ -s "build/docs/$name.html" ]
    done
fi
totals
