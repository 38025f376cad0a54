#!/bin/sh
# Attention in pipes: tensors on stdout, words on stderr, decisions by exit codes.
# Run it where npx finds performer, or set PERFORMER to the command: PERFORMER="bun cli.ts" sh examples/pipeline.sh
set -eu
cd "$(dirname "$0")/.."
performer=${PERFORMER:-npx performer}
words=$(mktemp)
trap 'rm -f "$words"' EXIT

# Two layers of attention without a file in between: "-" is standard output, and standard input.
$performer attend examples/data/lambda_virus.fa --encode kmer:6 --rows 0:3000 --causal --check 0 -q -o - |
  $performer attend - --heads 2 --features hyp-sderf -o - 2>"$words" |
  $performer inspect -

# What the second layer said went to stderr, as stdout carried the tensor.
grep "relative L2" "$words"

# A number for a script: JSON has the same keys in every version.
$performer attend examples/data/lambda_virus.fa --encode kmer:6 --rows 0:3000 --json |
  sed -n 's/^ *"skill": \([0-9.]*\).*/skill \1/p' | head -n 1

# A gate for continuous integration: exit code 1 when the error is above what was allowed.
if $performer attend examples/data/lambda_virus.fa --encode kmer:6 --rows 0:3000 -m 16 --max-error 0.05 -q; then
  echo "16 features are enough"
else
  echo "16 features are not enough (exit $?)"
fi
