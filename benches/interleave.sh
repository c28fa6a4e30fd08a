#!/usr/bin/env bash
# Whole training steps beside PyTorch, in turns: ours, PyTorch, ours, … Prints one line per sample.
#
# benches/interleave.sh STEPS SWEEP_TORCH PYTHON MNIST_DIR ROUNDS THREADS [SECONDS]
# STEPS is the built bench (`cargo bench --no-run --bench steps` prints its path); SWEEP_TORCH is the peers' script
# `sweep_torch.py`; PYTHON has torch; MNIST_DIR holds the four IDX files.
set -euo pipefail
steps=$1 sweep=$2 python=$3 mnist=$4 rounds=$5 threads=$6 seconds=${7:-1.5}
specs=$(mktemp); out=$(mktemp)
trap 'rm -f "$specs" "$out"' EXIT
for net in S M MBN; do echo "fashion $net $threads nhwc f32 loop sgd 64"; done > "$specs"
for round in $(seq "$rounds"); do
    "$steps" S M MBN --threads "$threads" --seconds "$seconds" --bench | sed "s/^/round $round convoy /"
    : > "$out"
    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 \
        "$python" "$sweep" --fashion "$mnist" --secs "$seconds" --specs "$specs" --out "$out" >/dev/null
    sed "s/^/round $round torch /" "$out"
done
