"""Accuracy on the test rows after the last epoch, beside PyTorch: the same network, rows, epochs and settings.

    python benches/accuracy.py torch mnist|cifar10 SEED FILE       (PEERS, and MNIST or CIFAR as below)
    python benches/accuracy.py convoy mnist|cifar10 SEED FILE      (CONVOY, and MNIST or CIFAR_SOURCE)

One run, on THREADS threads (1); its result is appended to FILE as a row of JSON. `mnist` is pipelines/mnist.toml (net M, 5 epochs), `cifar10` is
pipelines/cifar10-augmented.toml (net MBN with flips and padded crops, 15 epochs); the peer's copies of their settings
are below. PEERS has the peers' scripts `common.py` and `nets_torch.py`; MNIST holds the four IDX files, CIFAR the binary batches; CIFAR_SOURCE
is a source as a manifest names it, of the same images. CONVOY is the built program; CONVOLUTION is how its convolutions
are computed (direct). PyTorch draws its own first weights and orders of rows.
"""
import csv, glob, json, os, shutil, subprocess, sys, tempfile, time

who, task, seed, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
# network, channels, side, epochs, batch, rate, l2, training rows, padding of crops, nesterov, schedule (None: cosine)
TASKS = {
    "mnist": ("M", 1, 28, 5, 64, 0.02, 1e-4, 54000, 0, False, lambda epoch: 0.3 ** (epoch // 2)),
    "cifar10": ("MBN", 3, 32, 15, 32, 0.015, 1e-4, 49000, 2, True, None),
}


def write(row):
    with open(out, "a") as f:
        f.write(json.dumps({"task": task, "seed": seed, "who": who, **row}) + "\n")


def convoy():
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    manifest = os.path.join(here, "pipelines", {"mnist": "mnist", "cifar10": "cifar10-augmented"}[task] + ".toml")
    source = os.environ["MNIST" if task == "mnist" else "CIFAR_SOURCE"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(manifest, os.path.join(folder, "run.toml"))
        start = time.time()
        # A gate that is missed fails the run; the figures are what we are after.
        run = subprocess.run([os.environ["CONVOY"], "run", os.path.join(folder, "run.toml"), "--threads", os.environ.get("THREADS", "1"), "--quiet", "--set", f"seed={seed}",
                              "--set", f"stages.train.convolution={os.environ.get('CONVOLUTION', 'direct')}",
                              "--set", f"stages.ingest.source={source}"], capture_output=True, text=True)
        wall = round(time.time() - start)
        reports = glob.glob(os.path.join(folder, "out", "*", "metrics.csv"))
        assert len(reports) == 1, run.stdout + run.stderr
        for row in csv.DictReader(open(reports[0])):
            if (row["metric"], row["split"], row["class"]) == ("accuracy", "test", ""):
                write({"convolution": os.environ.get("CONVOLUTION", "direct"), "model": row["model"], "accuracy": float(row["value"]), "wall_s": wall})


def torch_run():
    sys.path.insert(0, os.environ["PEERS"])
    import torch, torch.nn.functional as F, numpy as np
    from common import load
    from nets_torch import net

    kind, channels, side, epochs, batch, rate, l2, n, padding, nesterov, schedule = TASKS[task]
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    torch.manual_seed(seed)
    data = load("cifar10", os.environ["CIFAR"]) if task == "cifar10" else load("fashion", os.environ["MNIST"])
    xtr, ytr, xte, yte = map(torch.from_numpy, data)
    keep = torch.randperm(len(xtr), generator=torch.Generator().manual_seed(1000 + seed))[:n]
    xtr, ytr = xtr[keep], ytr[keep]
    model = net(kind, channels, side).to(memory_format=torch.channels_last)
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": l2},
              {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=nesterov)
    n_steps = -(-n // batch)
    if padding:
        padded = F.pad(xtr, (padding,) * 4)
        along = torch.arange(side)
    start, step = time.time(), 0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(n)
        for i in range(n_steps):
            rows = order[i * batch:(i + 1) * batch]
            if padding:
                k = len(rows)
                down = torch.randint(0, 2 * padding + 1, (k, 1)) + along
                across = torch.randint(0, 2 * padding + 1, (k, 1)) + along
                across = torch.where(torch.rand(k, 1) < 0.5, across.flip(1), across)
                x = padded[rows[:, None, None], :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
            else:
                x = xtr[rows]
            x = x.contiguous(memory_format=torch.channels_last)
            factor = schedule(epoch) if schedule else 0.5 * (1 + np.cos(np.pi * step / (n_steps * epochs)))
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), ytr[rows]).backward()
            optimizer.step()
            step += 1
        model.eval()
        with torch.no_grad():
            right = sum((model(xte[i:i + 500]).argmax(1) == yte[i:i + 500]).sum().item() for i in range(0, len(xte), 500))
        print(task, seed, epoch + 1, right / len(xte), round(time.time() - start), flush=True)
    write({"accuracy": right / len(xte), "wall_s": round(time.time() - start), "torch": torch.__version__})


convoy() if who == "convoy" else torch_run()
