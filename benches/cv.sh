#!/usr/bin/env bash
# 5-fold cross-validation of net M on 10,000 images, 2 epochs a fold, as a whole command beside PyTorch, in turns; raw rows
# as JSON to FILE. `table.py FILE` makes the table of them.
#
#   PEERS=DIR PYTHON=PATH MNIST=DIR benches/cv.sh FILE [ROUNDS]
#
# PEERS has the peer's script `cv_torch.py`; PYTHON has torch; MNIST holds the four IDX files. Also: THREADS, CONVOLUTION
# (how ours are computed: winograd, the default), and CONVOY, the built program, which is built where it is not given. Ours
# starts with an empty cache and ends with reports written; both use the batch size, optimizer and learning rate of the peer's script.
set -euo pipefail
file=$1 rounds=${2:-7} threads=${THREADS:-2}
if [ -z "${CONVOY:-}" ]; then
    CONVOY=$(cargo build --release --bin convoy --message-format=json | sed -n 's/.*"executable":"\([^"]*convoy\)".*/\1/p' | tail -1)
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
: > "$file"
for round in $(seq "$rounds"); do
    rm -rf "$work/project"; mkdir "$work/project"
    cat > "$work/project/cv.toml" <<END
schema = 1
name   = "cv"
seed   = $round

[stages.ingest]
source = "$MNIST"
limit  = 10000

[stages.split]
test  = 0
folds = 5

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - [CONV(32) - RELU]*2 - POOL - [CONV(64) - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC"
epochs        = 2
batch_size    = 64
learning_rate = 0.01
optimizer     = { sgd = { momentum = 0.9, nesterov = true } }
l2            = 1e-4
convolution   = "${CONVOLUTION:-winograd}"

[stages.evaluate]
END
    python3 - "$file" "$round" "$threads" "$CONVOY" "$work/project/cv.toml" <<'END'
import json, os, subprocess, sys, time
file, round_, threads, convoy, manifest = sys.argv[1:]
start = time.perf_counter()
process = subprocess.Popen([convoy, "run", manifest, "--threads", threads, "--cache-dir", os.path.join(os.path.dirname(manifest), "cache")],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
out = process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - start
assert status == 0, out
row = {"round": int(round_), "who": "convoy", "what": f"5 folds of M, 10,000 images, 2 epochs, {threads} threads" + (", direct" if os.environ.get("CONVOLUTION") == "direct" else ""), "threads": int(threads), "wall_s": round(wall, 2),
       "cpu_s": round(usage.ru_utime + usage.ru_stime, 2), "rss_mib": round(usage.ru_maxrss / 1024), "out": [line for line in out.splitlines() if "out_of_fold" in line]}
open(file, "a").write(json.dumps(row) + "\n")
END
    (cd "$PEERS" && MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 \
        "$PYTHON" cv_torch.py --data "$MNIST" --threads "$threads") | sed -n "s/^{/{\"round\": $round, \"who\": \"torch\", /p" >> "$file"
    echo "round $round of $rounds done" >&2
done
