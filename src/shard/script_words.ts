/** What scripts of several engines have in common. */

/** A shell function: runs a command again while it exits 75. */
export const AGAIN =
  `# Exit 75 is a fault that may pass: a device was lost, a disk is full. Any other failure would be the same again.
again() {
  for wait in 2 10 60 ""; do
    "$@" && return 0
    code=$?
    if [ "$code" -ne 75 ] || [ -z "$wait" ]; then return "$code"; fi
    sleep "$wait"
  done
}`;

/** "16 shards of plan.json, bidirectional". */
export const headline = ({ shards, plan, causal }: { shards: number; plan: string; causal: boolean }): string =>
  `${shards} shards of ${plan}, ${causal ? "causal" : "bidirectional"}; made by performer shard script`;
