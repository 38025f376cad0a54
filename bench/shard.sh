#!/usr/bin/env bash
# bench/shard.sh: what one core does of `performer shard`, for docs/scale.md: ROWS rows (default 131072) of HEADS × 64 (8), m = M (256), float32, on one thread of
# the wasm backend, as CPU seconds of whole processes (so that a busy machine changes little), least of RUNS (3); and what merge takes per state.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${ROWS:-131072} heads=${HEADS:-8} m=${M:-256} runs=${RUNS:-3} backend=${BACKEND:-wasm} states=${STATES:-32}
root=$PWD
bun=$root/node_modules/.bin/bun
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
performer() { "$bun" "$root/cli.ts" shard "$@"; }

"$bun" -e '
  const { openSync, writeSync } = await import("node:fs");
  const [rows, cols] = process.argv.slice(1).map(Number);
  const dict = `{"descr": "<f4", "fortran_order": False, "shape": (${rows}, ${cols}), }`.replaceAll("\"", "\u0027").padEnd(117) + "\n";
  for (const [i, name] of ["q", "k", "v"].entries()) {
    const file = openSync(`${name}.npy`, "w");
    writeSync(file, Uint8Array.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0, ...new TextEncoder().encode(dict)]));
    let x = i + 1;
    for (let row = 0; row < rows; row++) {
      writeSync(file, new Uint8Array(Float32Array.from({ length: cols }, () => 0.6 * (x = Math.imul(x, 1664525) + 1013904223 | 0) / 2 ** 31).buffer));
    }
  }
' "$rows" $((64 * heads))

TIMEFORMAT="%U %S %R"
# CPU seconds (user and system) and wall seconds of a command, those of the run with the least CPU.
least() {
  for ((run = 0; run < runs; run++)); do { time "$@" > /dev/null 2>&1; } 2>&1; done | awk '{print $1 + $2, $3}' | sort -n | head -1
}
rate() { awk -v n="$2" '{printf "%s: %.0f tokens per CPU second (%.2f CPU s, %.2f s)\n", "'"$1"'", n / ($1 - '"$start"'), $1, $2}'; }

for causal in "" --causal; do
  performer plan q.npy k.npy v.npy --heads "$heads" --shards 1 -m "$m" $causal -o "plan$causal.json" -q
done
flags=(--id 0 --backend "$backend" --threads 1 -q)
performer map plan.json -o states "${flags[@]}"
performer map plan--causal.json -o cstates "${flags[@]}"
performer merge plan.json states -o kv.safetensors -q
performer merge plan--causal.json cstates --scan -o prefix -q
start=$(least performer map plan.json -o states "${flags[@]}" | cut -d' ' -f1)
echo "a process that finds its work done: $start CPU s"
least performer map plan.json -o states "${flags[@]}" --force | rate map "$rows"
least performer apply plan.json --state kv.safetensors -o out "${flags[@]}" --force | rate apply "$rows"
least performer apply plan--causal.json --state prefix -o cout "${flags[@]}" --force | rate "apply, causal" "$rows"

# Many states of few rows cost merge what many states of many rows do.
head=$((states * 64))
performer plan q.npy k.npy v.npy --heads "$heads" --rows 0:$head --shards "$states" -m "$m" --causal -o many.json -q
for ((id = 0; id < states; id++)); do performer map many.json --id $id -o many "${flags[@]:2}"; done
bytes=$(stat -c %s many/0000.safetensors)
per() { awk -v n="$states" '{printf "%s: %.1f ms of CPU per state of %d bytes (%.1f ms)\n", "'"$1"'", 1000 * ($1 - '"$start"') / n, '"$bytes"', 1000 * ($2 - '"$start"') / n}'; }
least performer merge many.json many -o many.safetensors -q | per merge
least performer merge many.json many --scan -o many_prefix -q | per "merge --scan"
