#!/usr/bin/env bash
# Whole training steps beside PyTorch (all nets) and Keras (net S), in turns; raw rows as JSON, one sample a line, to FILE.
# `table.py FILE` makes the table of them.
#
#   PEERS=DIR PYTHON=PATH KERAS=PATH MNIST=DIR CIFAR=DIR benches/interleave.sh FILE [ROUNDS]
#
# PEERS has the peers' scripts `sweep_torch.py` and `train_keras.py`; PYTHON has torch, KERAS keras and tensorflow (left
# out if not set); MNIST holds the four IDX files, CIFAR the binary batches. Also: NETS, THREADS, SECONDS_EACH, and STEPS,
# the built bench, which is built where it is not given. All nets but S, whose one convolution that does not concern, run with
# `convolution = "winograd"` as well. Each sample stands between two probes of the multiply-add peak.
# PyTorch runs channels_last over tensors in memory, and glibc is told to keep its memory, which makes PyTorch faster.
set -euo pipefail
file=$1 rounds=${2:-7}
nets=${NETS:-S M MBN M32 MBN32 L} threads=${THREADS:-1 2} seconds=${SECONDS_EACH:-1.5}
if [ -z "${STEPS:-}" ]; then
    STEPS=$(cargo bench --no-run --bench steps --message-format=json | sed -n 's/.*"executable":"\([^"]*steps-[^"]*\)".*/\1/p' | tail -1)
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
probe() { "$STEPS" --probe --threads "$1" | sed 's/.*"peak": \([0-9.]*\).*/\1/'; }
# row ROUND EXTRA: the JSON object on stdin, with these facts in front.
row() { sed -n "s/^{/{\"round\": $1, $2/p" >> "$file"; }
: > "$file"
for round in $(seq "$rounds"); do
    for n in $threads; do
        for net in $nets; do
            "$STEPS" "$net" --threads "$n" --seconds "$seconds" --json | row "$round" ""
            if [ "$net" != S ]; then
                "$STEPS" "$net/winograd" --threads "$n" --seconds "$seconds" --json | row "$round" ""
            fi
            case $net in
                S | M | MBN) spec="fashion $net $n nhwc f32 loop sgd 64" ;;
                M32 | MBN32) spec="cifar10 ${net%32} $n nhwc f32 loop sgd 64" ;;
                L) spec="cifar10 L $n nhwc f32 loop sgd 128" ;;
            esac
            echo "$spec" > "$work/specs"
            before=$(probe "$n")
            (cd "$PEERS" && MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 \
                "$PYTHON" sweep_torch.py --fashion "$MNIST" --cifar "$CIFAR" --secs "$seconds" --specs "$work/specs") > "$work/out"
            after=$(probe "$n")
            row "$round" "\"who\": \"torch\", \"net\": \"$net\", \"peaks\": [$before, $after], " < "$work/out"
            if [ "$net" = S ] && [ -n "${KERAS:-}" ]; then
                before=$(probe "$n")
                (cd "$PEERS" && "$KERAS" train_keras.py --data "$MNIST" --model S --threads "$n" --n 25600 --epochs 3) \
                    > "$work/out" 2> "$work/err" || { cat "$work/err" >&2; exit 1; }
                after=$(probe "$n")
                row "$round" "\"who\": \"keras\", \"net\": \"$net\", \"peaks\": [$before, $after], " < "$work/out"
            fi
        done
    done
    echo "round $round of $rounds done" >&2
done
