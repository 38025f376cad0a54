#!/usr/bin/env bash
# Exact attention beside FAVOR+, and where they cross: exact.sh [NAME [FLAGS…]]
export PERFORMER_MODE=bidirectional,causal PERFORMER_FEATURES=softmax,hyperbolic,positive PERFORMER_NUM_FEATURES=256 PERFORMER_LENGTHS=256,512,1024,2048,4096
exec "$(dirname "$0")/workload.sh" exact "$@"
