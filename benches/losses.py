"""Whether a network trained here follows the same network trained by PyTorch: same first weights, same batches.

    python benches/losses.py STEPS_BENCH MNIST_DIR [N_BATCHES]

STEPS_BENCH is the built bench (`cargo bench --no-run --bench steps` prints its path), MNIST_DIR holds the IDX files.
Net M without dropout, batches of 64, SGD with momentum 0.9 at a rate of 0.002 (a rate at which rounding differences do not grow
from batch to batch as they do in a chaotic start). Prints the first losses and the mean loss of both over each
tenth of the batches and over all of them, and fails if the latter differ by more than 1 %.
"""
import gzip, os, subprocess, sys, tempfile
import numpy as np
import torch
import torch.nn as nn

bench, mnist = sys.argv[1:3]
n = 64 * (int(sys.argv[3]) if len(sys.argv) > 3 else 937)


def idx(name, offset):
    with gzip.open(os.path.join(mnist, name)) as f:
        return np.frombuffer(f.read(), np.uint8, offset=offset)


images = idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)[:n].astype(np.float32) / 255
images = ((images - images.mean()) / images.std()).astype(np.float32)
labels = idx("train-labels-idx1-ubyte.gz", 8)[:n]
with tempfile.TemporaryDirectory() as folder:
    images.tofile(os.path.join(folder, "images.f32"))
    labels.tofile(os.path.join(folder, "labels.u8"))
    out = subprocess.run([bench, "--losses", folder, "--threads", "2", "--bench"], check=True, capture_output=True, text=True)
    ours = np.array([float(line) for line in out.stdout.split()])
    tensors = {name[:-4]: np.fromfile(os.path.join(folder, name), np.float32) for name in os.listdir(folder) if name.endswith((".weights.f32", ".bias.f32"))}


class Flatten(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def conv(i, o):
    return [nn.Conv2d(i, o, 3, padding=1), nn.ReLU()]


net = nn.Sequential(*conv(1, 32), *conv(32, 32), nn.MaxPool2d(2), *conv(32, 64), *conv(64, 64), nn.MaxPool2d(2), Flatten(),
                    nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))
names = sorted({name.rsplit(".", 1)[0] for name in tensors}, key=lambda name: int(name.split(".")[0]))
with torch.no_grad():
    for layer, name in zip([l for l in net if isinstance(l, (nn.Conv2d, nn.Linear))], names, strict=True):
        weights = torch.from_numpy(tensors[name + ".weights"])
        if isinstance(layer, nn.Conv2d):
            o, i, h, w = layer.weight.shape
            layer.weight.copy_(weights.reshape(h, w, i, o).permute(3, 2, 0, 1))
        else:
            layer.weight.copy_(weights.reshape(layer.weight.shape[::-1]).T)
        layer.bias.copy_(torch.from_numpy(tensors[name + ".bias"]))
optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9)
x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
theirs = []
for i in range(0, n, 64):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x[i:i + 64]), y[i:i + 64])
    loss.backward()
    optimizer.step()
    theirs.append(loss.item())
theirs = np.array(theirs)
print("first losses:", *(f"{a:.5f}/{b:.5f}" for a, b in zip(ours[:6], theirs[:6])))
for a, b in zip(np.array_split(ours, 10), np.array_split(theirs, 10)):
    print(f"convoy {a.mean():.6f}  PyTorch {b.mean():.6f}  ratio {a.mean() / b.mean():.5f}")
ratio = ours.mean() / theirs.mean()
print(f"all {len(ours)} batches: convoy {ours.mean():.6f}  PyTorch {theirs.mean():.6f}  ratio {ratio:.5f}")
sys.exit(abs(ratio - 1) > 0.01)
