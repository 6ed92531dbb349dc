#!/usr/bin/env bash
# Alert rules, their tests and the dashboard name metrics that exist. `make test-monitoring` does more.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${TD_BUILD:-build/release}/bin
good=0 bad=0
known=$("$bin/tdmpc2" stats --markdown | cut -d'|' -f3 | tr -d '` ' | grep '^tdmpc2_')
known+=$'\ntdmpc2_build_info\ntdmpc2_uptime_seconds\ntdmpc2_is_waiting\ntdmpc2_cpu_seconds_total\ntdmpc2_snapshot_age_seconds'

for file in deploy/monitoring/{alerts.yml,alerts_test.yml,grafana.json}; do
    used=$(grep -o 'tdmpc2_[a-z0-9_]*' "$file" | sort -u)
    [ "$(wc -l <<<"$used")" -ge 8 ] || { echo "$file names hardly any metric"; bad=$((bad + 1)); }
    unknown=$(sed -E 's/(_seconds)_(count|sum)$/\1/' <<<"$used" | grep -vxFf <(echo "$known"))
    if [ -z "$unknown" ]; then good=$((good + 1)); else echo "$file: no such metric:" $unknown; bad=$((bad + 1)); fi
done
# every alert has a test
untested=$(comm -23 <(grep -o 'alert: .*' deploy/monitoring/alerts.yml | cut -c8- | sort -u) \
    <(grep -o 'alertname: [A-Za-z0-9]*' deploy/monitoring/alerts_test.yml | cut -c12- | sort -u))
if [ -z "$untested" ]; then good=$((good + 1)); else echo "alerts without a test:" $untested; bad=$((bad + 1)); fi
python3 -c 'import json; json.load(open("deploy/monitoring/grafana.json"))' && good=$((good + 1)) || bad=$((bad + 1))

echo "[==========] $((good + bad)) test(s) run."
echo "[  PASSED  ] $good test(s)."
[ "$bad" -eq 0 ] || { echo "[  FAILED  ] $bad test(s)."; exit 1; }
