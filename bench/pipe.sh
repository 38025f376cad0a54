#!/usr/bin/env bash
# How fast a .npy stream goes through `performer attend - -o -`, beside `cat | cat`, on Bun and Deno: pipe.sh [NAME]
# GIB=2 of rows of 64 float32, RUNS=5 in turns. With a NAME it also writes bench/results/DATE-pipe-NAME.md.
set -euo pipefail
cd "$(dirname "$0")/.."
gib=${GIB:-2} runs=${RUNS:-5} name=${1-}
rows=$((gib * 1024 * 1024 * 1024 / 256))

# A .npy of zeros, which every reader and writer moves as it does other numbers.
stream() {
  dict=$(printf "%-117s" "{'descr': '<f4', 'fortran_order': False, 'shape': ($rows, 64), }")
  printf '\x93NUMPY\x01\x00\x76\x00%s\n' "$dict"
  head -c $((rows * 256)) /dev/zero
}
bun() { node_modules/.bin/bun cli.ts attend - -q -o - "$@"; }
deno() { node_modules/.bin/deno run -A --quiet cli.ts attend - -q -o - "$@"; }

small=(--features elu --heads 4 --check 0 --backend wasm)
labels=(
  "cat"
  "bun, --features none"
  "deno, --features none"
  "bun, causal (one pass): ${small[*]} --causal"
  "bun, bidirectional (spooled, two passes): ${small[*]}"
)
one() {
  case $1 in
    0) cat ;;
    1) bun --features none ;;
    2) deno --features none ;;
    3) bun "${small[@]}" --causal ;;
    4) bun "${small[@]}" ;;
  esac
}

times=()
for run in $(seq "$runs"); do
  for i in "${!labels[@]}"; do
    start=$(date +%s%N)
    stream | one "$i" | cat > /dev/null
    times[i]+="$(($(date +%s%N) - start)) "
  done
  echo "run $run of $runs done" >&2
done

report() {
  echo "# A stream of $gib GiB through a pipe"
  echo
  echo "\`bench/pipe.sh\`, $(date +%F), $(nproc) threads of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg) at the end"
  echo
  echo "GB/s of input of \`stream | … | cat > /dev/null\`, start included; median of $runs runs in turns, and all of them."
  echo
  echo "| … | GB/s | all runs | of cat |"
  echo "|---|---|---|---|"
  reference=$(median "${times[0]}")
  for i in "${!labels[@]}"; do
    middle=$(median "${times[i]}")
    all=$(for t in ${times[i]}; do rate "$t"; done | paste -sd ' ')
    echo "| ${labels[i]} | $(rate "$middle") | $all | $((100 * reference / middle)) % |"
  done
}
median() { tr ' ' '\n' <<< "${1% }" | sort -n | sed -n "$((runs / 2 + 1))p"; }
rate() { awk -v bytes=$((rows * 256)) -v ns="$1" 'BEGIN { printf "%.2f\n", bytes / ns }'; }

if [ -z "$name" ]; then report; else report | tee "bench/results/$(date +%F)-pipe-$name.md"; fi
