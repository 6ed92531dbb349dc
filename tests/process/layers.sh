#!/usr/bin/env bash
# Each module of common/ may include those above it in STYLE's list, never below; learner/, actor/ and
# tools/ may include common/; nothing includes tests/.
set -uo pipefail
cd "$(dirname "$0")/../.."
order=(util metrics tensor nn model plan env ckpt store wire net)
declare -A rank
for i in "${!order[@]}"; do rank[${order[$i]}]=$i; done
bad=0
complain() { echo "$1"; bad=$((bad + 1)); }

while IFS=: read -r file include; do
    from=${file#common/}; from=${from%%/*}
    case $include in
        common/*)
            to=${include#common/}; to=${to%%/*}
            [ -n "${rank[$from]:-}" ] || complain "$file: module '$from' is not in the order"
            [ -n "${rank[$to]:-}" ] || complain "$file includes $include: module '$to' is not in the order"
            [ "${rank[$to]:-99}" -le "${rank[$from]:--1}" ] || complain "$file includes $include, which lies below it"
            ;;
        learner/* | actor/* | tools/* | tests/*) complain "$file includes $include" ;;
    esac
done < <(grep -rHoE '^#include "[^"]+"' common --include='*.[ch]' | sed -E 's/#include "([^"]+)"/\1/')

while IFS=: read -r file include; do
    complain "$file includes $include"
done < <(grep -rHoE '^#include "tests/[^"]+"' learner actor tools --include='*.[ch]' 2>/dev/null | sed -E 's/#include "([^"]+)"/\1/')

if [ $bad -eq 0 ]; then echo "[  PASSED  ] 1 test(s)."; else echo "[  FAILED  ] 1 test(s)."; exit 1; fi
