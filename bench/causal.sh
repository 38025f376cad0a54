#!/usr/bin/env bash
# Causal FAVOR+ over growing L: causal.sh [NAME [FLAGS…]]
export PERFORMER_MODE=causal PERFORMER_FEATURES=hyperbolic,positive PERFORMER_NUM_FEATURES=256 PERFORMER_LENGTHS=1024,4096,16384,65536
exec "$(dirname "$0")/workload.sh" causal "$@"
