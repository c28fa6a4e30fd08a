#!/usr/bin/env bash
# Single layers beside oneDNN (same process) and PyTorch (its own process, in turns). Appends raw rows to OUT.
#
# benches/conv.sh CONV SHIM ROUNDS THREADS OUT [BENCH_CONV_PY PYTHON]
# CONV is the built bench (`cargo bench --no-run --bench conv` prints its path); SHIM the shared library around oneDNN, or
# `-`; BENCH_CONV_PY is the peers' script `bench_conv.py` and PYTHON an interpreter that has torch.
set -euo pipefail
conv=$1 shim=$2 rounds=$3 threads=$4 out=$5 script=${6:-} python=${7:-python3}
if [ "$shim" != - ]; then export CONVOY_ONEDNN=$shim; fi
for round in $(seq "$rounds"); do
    echo "round $round, $threads threads"
    "$conv" layers --threads "$threads" --rows "$out" --bench
    if [ -n "$script" ]; then
        json=$(mktemp)
        (cd "$(dirname "$script")" && "$python" "$script" --threads "$threads" --out "$json" >/dev/null)
        # f32, channels last where there are channels: forward, and forward with all gradients.
        grep '"dtype": "f32"' "$json" | grep -e '"layout": "nhwc"' -e '"layer": "10 ' | sed "s/^/torch\t/" | tee -a "$out"
        rm -f "$json"
    fi
done
