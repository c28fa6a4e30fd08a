"""`reduce` and per-pixel moments on 60,000 x 784 beside scikit-learn, in turns; raw rows as JSON to FILE, the table to stdout.

    python benches/reduce.py REDUCE_BENCH IMAGES_IDX_GZ FILE [ROUNDS] [THREADS…]

REDUCE_BENCH is the built bench (`cargo bench --no-run --bench reduce` prints its path), IMAGES_IDX_GZ is MNIST's
`train-images-idx3-ubyte.gz`. The peer has its matrix in memory as f32, ours reads bytes and scales them on the way; the peer's PCA uses its
fastest exact solver (`covariance_eigh`). A fit is timed for PCA and moments, fit and projection of all samples for projections.
"""
import gzip, json, os, re, statistics, subprocess, sys, time

# name here: (scikit-learn's, what is timed)
METHODS = {"pca-50": ("PCA to 50", "fit"), "pca-whiten": ("full PCA whitening", "fit"), "gaussian-128": ("Gaussian projection to 128", "both"),
           "sparse-128": ("sparse projection to 128", "both"), "moments": ("mean and deviation", "fit")}


def peer(images):
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler
    from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

    x = np.frombuffer(gzip.open(images).read(), np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    makes = {"pca-50": lambda: PCA(50, svd_solver="covariance_eigh"), "pca-whiten": lambda: PCA(784, whiten=True, svd_solver="covariance_eigh"),
             "gaussian-128": lambda: GaussianRandomProjection(128, random_state=0), "sparse-128": lambda: SparseRandomProjection(128, random_state=0),
             "moments": StandardScaler}
    for name, make in makes.items():
        times = []
        for _ in range(2):  # The first one touches memory for the first time.
            fitted = make()
            start = time.perf_counter(); fitted.fit(x); fit = time.perf_counter() - start
            start = time.perf_counter(); fitted.transform(x); times.append((fit, time.perf_counter() - start))
        fit, project = min(t[0] for t in times), min(t[1] for t in times)
        print(json.dumps({"method": name, "fit_s": fit, "project_s": project}), flush=True)


if sys.argv[1] == "--peer":
    peer(sys.argv[2])
    sys.exit()
bench, images, file = sys.argv[1:4]
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 7
rows = []
with open(file, "a") as out:
    for round_ in range(1, rounds + 1):
        for threads in sys.argv[5:] or ["1", "2"]:
            env = dict(os.environ, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
            # Settings that would keep the peer from the best kernels of this processor.
            for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
                env.pop(name, None)
            found = []
            text = subprocess.run([bench, "--bench", *list(METHODS)[:4], "--threads", threads, "--repeats", "2", "--idx", images], check=True, capture_output=True, text=True).stdout
            for line in text.splitlines():
                if match := re.match(r"(\S+): fit \S+ s \(least (\S+)\), project \S+ s \(least (\S+)\)", line):
                    found.append(("convoy", match[1], float(match[2]), float(match[3])))
                elif match := re.match(r"mean and deviation: (\S+) s", line):
                    found.append(("convoy", "moments", float(match[1]), 0.0))
            text = subprocess.run([sys.executable, __file__, "--peer", images], check=True, capture_output=True, text=True, env=env).stdout
            found += [("sklearn", row["method"], row["fit_s"], row["project_s"]) for row in map(json.loads, text.splitlines())]
            for who, method, fit, project in found:
                row = {"round": round_, "threads": int(threads), "who": who, "method": method, "fit_s": fit, "project_s": project}
                rows.append(row)
                out.write(json.dumps(row) + "\n")
            out.flush()
print("| 60,000 x 784 | threads | convoy, s | scikit-learn, s | median ratio (lowest to highest of n pairs) |\n| --- | --- | --- | --- | --- |")
for method, (name, timed) in METHODS.items():
    for threads in sorted({row["threads"] for row in rows}):
        seconds = {who: [row["fit_s"] + (row["project_s"] if timed == "both" else 0) for row in rows if (row["who"], row["method"], row["threads"]) == (who, method, threads)]
                   for who in ("convoy", "sklearn")}
        ratios = [b / a for a, b in zip(seconds["convoy"], seconds["sklearn"])]
        ours, theirs = (statistics.median(seconds[who]) for who in ("convoy", "sklearn"))
        print(f"| {name} | {threads} | {ours:.3f} | {theirs:.3f} | **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)}) |")
