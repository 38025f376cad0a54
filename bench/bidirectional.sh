#!/usr/bin/env bash
# Bidirectional FAVOR+ over growing L, both feature maps of softmax: bidirectional.sh [NAME [FLAGS…]]
exec "$(dirname "$0")/workload.sh" bidirectional "${1-}" --mode bidirectional --features hyperbolic,positive --projection orthogonal,hadamard -m 256 -L 1024,4096,16384,65536 "${@:2}"
