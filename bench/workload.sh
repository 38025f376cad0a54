#!/usr/bin/env bash
# Runs one workload: workload.sh WORKLOAD NAME FLAGS… With a NAME it also writes bench/results/DATE-WORKLOAD-NAME.json and .md.
# RUNTIME=deno runs it on Deno. A workload sets PERFORMER_… variables, which flags win over; other variables set what it leaves open.
set -eu
workload=$1 name=${2-}
shift $(($# < 2 ? $# : 2))
cd "$(dirname "$0")/.."
case "${RUNTIME:-bun}" in
  deno) run=(node_modules/.bin/deno run -A --quiet cli.ts) ;;
  *) run=(node_modules/.bin/bun cli.ts) ;;
esac
if [ -z "$name" ]; then exec "${run[@]}" bench "$@"; fi
file=bench/results/$(date +%F)-$workload-$name
status=0
"${run[@]}" bench "$@" --output "$file.json" --format md > "$file.md.tmp" || status=$?
if [ $status -le 1 ]; then # 1: finished, but slower than --compare
  mv "$file.md.tmp" "$file.md"
  cat "$file.md"
else
  rm "$file.md.tmp"
fi
exit $status
