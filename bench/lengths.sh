#!/usr/bin/env bash
# How time grows with L, up to a million rows: lengths.sh [NAME [FLAGS…]]
export PERFORMER_MODE=bidirectional,causal PERFORMER_FEATURES=hyperbolic PERFORMER_NUM_FEATURES=256 PERFORMER_LENGTHS=2^14,2^15,2^16,2^17,2^18,2^19,2^20 PERFORMER_SAMPLES=5
exec "$(dirname "$0")/workload.sh" lengths "$@"
