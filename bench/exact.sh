#!/usr/bin/env bash
# Exact attention beside FAVOR+, and where they cross: exact.sh [NAME [FLAGS…]]
exec "$(dirname "$0")/workload.sh" exact "${1-}" --mode bidirectional,causal --features softmax,hyperbolic,positive -m 256 -L 256,512,1024,2048,4096 "${@:2}"
