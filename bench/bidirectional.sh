#!/usr/bin/env bash
# Bidirectional FAVOR+ over growing L, both feature maps of softmax: bidirectional.sh [NAME [FLAGS…]]
export PERFORMER_MODE=bidirectional PERFORMER_FEATURES=hyperbolic,positive PERFORMER_PROJECTION=orthogonal,hadamard PERFORMER_NUM_FEATURES=256 PERFORMER_LENGTHS=1024,4096,16384,65536
exec "$(dirname "$0")/workload.sh" bidirectional "$@"
