"""The table of median ratios, of raw rows that `interleave.sh` or `cv.sh` wrote.

    python benches/table.py FILE [--all]

A pair is one sample of ours and one of a peer, of the same round. A sample is discarded, and its pair with it, if the
multiply-add peak measured right before or after it is below 85 % of the median peak of that program's samples on as many
threads: it was not alone on the machine. (Peaks are lower right after wide vectors: each program is compared with itself.)
`--all` keeps all: files of before 2026-11-29, whose probes on several threads did not wait until each thread had a processor
of its own (they read half of the peak, or all of it, by chance).
A net with "/winograd" is ours with `convolution = "winograd"`, beside the peer's net; its share of the peak counts the
multiply-adds of the direct way.
"""
import json, statistics, sys
from collections import defaultdict

rows = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
median = statistics.median
if rows and "wall_s" in rows[0]:
    pairs = defaultdict(dict)
    for row in rows:
        pairs[row["round"]][row["who"]] = row
    pairs = [pair for pair in pairs.values() if len(pair) == 2]
    print("| whole command | convoy, s | PyTorch, s | median ratio (lowest to highest of n pairs) | memory, MiB |")
    print("| --- | --- | --- | --- | --- |")
    ours, theirs = [[pair[who]["wall_s"] for pair in pairs] for who in ("convoy", "torch")]
    ratios = [b / a for a, b in zip(ours, theirs)]
    memory = " / ".join(str(max(pair[who].get("rss_mib", 0) for pair in pairs)) for who in ("convoy", "torch"))
    print(f"| {rows[0].get('what', '')} | {median(ours):.2f} | {median(theirs):.2f} | **{median(ratios):.2f}** "
          f"({min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)}) | {memory} |")
    sys.exit()
kinds = {(row["threads"], row["who"]) for row in rows}
usual = {kind: median(p for row in rows if (row["threads"], row["who"]) == kind for p in row["peaks"]) for kind in kinds}
samples, discarded = {}, 0
for row in rows:
    row["img_s"] = row.get("img_s") or row.get("img_s_epoch_med")
    if "--all" not in sys.argv and min(row["peaks"]) < 0.85 * usual[row["threads"], row["who"]]:
        discarded += 1
        continue
    samples[row["net"], row["threads"], row["who"], row["round"]] = row
print("| net, batch | threads | convoy, images/s | share of peak | peer | images/s | median ratio (lowest to highest of n pairs) |")
print("| --- | --- | --- | --- | --- | --- | --- |")
order = list(dict.fromkeys((row["net"], row["threads"], row["who"]) for row in rows if row["who"] != "convoy"))
nets = list(dict.fromkeys(row["net"] for row in rows))
order += [(net + "/winograd", threads, peer) for net, threads, peer in order if net + "/winograd" in nets]
for net, threads, peer in sorted(order, key=lambda key: nets.index(key[0])):
    pairs = []
    for (n, t, who, i), ours in samples.items():
        theirs = samples.get((net.removesuffix("/winograd"), threads, peer, i))
        if (n, t, who) == (net, threads, "convoy") and theirs:
            pairs.append((ours, theirs))
    if not pairs:
        print(f"| {net} | {threads} | | | {peer} | | no pair left |")
        continue
    ratios = [a["img_s"] / b["img_s"] for a, b in pairs]
    share = f"{median(a['gflops'] / max(a['peaks']) for a, _ in pairs):.0%}"
    print(f"| {net}, {pairs[0][0]['batch']} | {threads} | {median(a['img_s'] for a, _ in pairs):,.0f} | {share} | {peer} "
          f"| {median(b['img_s'] for _, b in pairs):,.0f} | **{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)}) |")
peaks = ", ".join(f"{peak:.0f} ({n}, {who})" for (n, who), peak in sorted(usual.items()))
print(f"\n{len(rows)} samples, {discarded} discarded. Median multiply-add peak, GFLOP/s (threads, program): {peaks}.")
