"""Makes training.json, what tests/training.rs compares with: layers, losses, optimizers, schedules and initialisers of
PyTorch, in double precision.

    python tests/reference/make_training.py > tests/reference/training.json

Made with torch 2.x. Inputs and weights are not stored: both sides compute them from `value`.
"""

import json
import math

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.manual_seed(1)


def value(k, i):
    return ((i * i * 7 + i * 13 + k * 29) % 101 - 50) / 80


def tensor(k, shape, offset=0.0, scale=1.0):
    n = math.prod(shape)
    # Single precision, as the weights of the network under test are.
    values = torch.tensor([offset + scale * value(k, i) for i in range(n)], dtype=torch.float32)
    return values.to(torch.float64).reshape(shape)


def rounded(t):
    return [float(f"{x:.9g}") for x in torch.as_tensor(t).detach().reshape(-1).tolist()]


# ---- layers and losses

NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class Net:
    """Layers by the words of a manifest; activations are NHWC, kernels [kh, kw, c_in, filters]."""

    def __init__(self, layers, shape, n_classes):
        self.layers, self.parameters, self.k = [], {}, 0
        h, w, c = shape
        for i, (word, *keys) in enumerate(layers, 1):
            name = f"{i}.{word}"
            if word == "conv":
                f, k, s, p, g = keys
                self.new(name, "weights", (k, k, c // g, f)), self.new(name, "bias", (f,))
                h, w, c = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1, f
            elif word == "local":
                f, k, s, p = keys
                h, w = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
                self.new(name, "weights", (h, w, k, k, c, f)), self.new(name, "bias", (h, w, f))
                c = f
            elif word in ("pool", "avgpool"):
                k, s, p = keys
                h, w = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
            elif word == "gap":
                h, w = 1, 1
            elif word == "bn":
                self.new(name, "scale", (c,), 1.0, 0.3), self.new(name, "shift", (c,))
                self.k += 2
                self.parameters[name + ".running_mean"] = torch.zeros(c)
                self.parameters[name + ".running_variance"] = torch.ones(c)
            elif word == "fc":
                units = keys[0] if keys else n_classes
                self.new(name, "weights", (h * w * c, units)), self.new(name, "bias", (units,))
                h, w, c = 1, 1, units
            self.layers.append((word, keys, name))

    def new(self, name, what, shape, offset=0.0, scale=1.0):
        t = tensor(self.k, shape, offset, scale).requires_grad_()
        self.k += 1
        self.parameters[f"{name}.{what}"] = t

    def trained(self):
        return {name: t for name, t in self.parameters.items() if t.requires_grad}

    def logits(self, x, training):
        for word, keys, name in self.layers:
            at = lambda what: self.parameters[f"{name}.{what}"]
            if word == "conv":
                f, k, s, p, g = keys
                y = F.conv2d(x.permute(NCHW), at("weights").permute(3, 2, 0, 1), at("bias"), s, p, groups=g)
                x = y.permute(NHWC)
            elif word == "local":
                f, k, s, p = keys
                n, (oh, ow) = x.shape[0], at("bias").shape[:2]
                patches = F.unfold(x.permute(NCHW), k, padding=p, stride=s).reshape(n, x.shape[3], k, k, oh, ow)
                x = torch.einsum("ncabhw,hwabcf->nhwf", patches, at("weights")) + at("bias")
            elif word == "pool":
                x = F.max_pool2d(x.permute(NCHW), *keys).permute(NHWC)
            elif word == "avgpool":
                x = F.avg_pool2d(x.permute(NCHW), *keys, count_include_pad=False).permute(NHWC)
            elif word == "gap":
                x = x.mean((1, 2), keepdim=True)
            elif word == "relu":
                x = F.relu(x)
            elif word == "leaky":
                x = F.leaky_relu(x, keys[0])
            elif word == "elu":
                x = F.elu(x, keys[0])
            elif word == "bn":
                last = x.reshape(-1, x.shape[-1])
                running = at("running_mean"), at("running_variance")
                y = F.batch_norm(last, *running, at("scale"), at("shift"), training, momentum=0.1, eps=1e-5)
                x = y.reshape(x.shape)
            elif word == "fc":
                x = (x.flatten(1) @ at("weights") + at("bias"))[:, None, None, :]
        return x.flatten(1)


def images(n, shape):
    return tensor(1000, (n, *shape), scale=2.0)


def labels(n, n_classes):
    return torch.tensor([i * 2 % n_classes for i in range(n)])


def loss_of(logits, y, smoothing=0.0, weights=None, targets=None):
    if targets is not None:
        return F.cross_entropy(logits, torch.tensor(targets), label_smoothing=smoothing)
    losses = F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
    # A sample weighs what its class does, smoothed or not (with both, `weight=` of PyTorch weighs the smoothed part by
    # every class; without smoothing it is this).
    w = torch.ones(len(y)) if weights is None else torch.tensor(weights)[y]
    if smoothing == 0.0 and weights is not None:
        torch.testing.assert_close((w * losses).sum() / w.sum(), F.cross_entropy(logits, y, weight=torch.tensor(weights)))
    return (w * losses).sum() / w.sum()


def network(name, architecture, layers, shape=(6, 5, 2), n=4, n_classes=3, **loss):
    net, x, y = Net(layers, shape, n_classes), images(n, shape), labels(n, n_classes)
    value = loss_of(net.logits(x, True), y, **loss)
    trained = net.trained()
    gradients = torch.autograd.grad(value, list(trained.values()))
    return {
        "name": name,
        "architecture": architecture,
        "shape": shape,
        "n": n,
        "n_classes": n_classes,
        **loss,
        "loss": value.item(),
        "gradients": {name: rounded(g) for name, g in zip(trained, gradients)},
        "statistics": {name: rounded(t) for name, t in net.parameters.items() if not t.requires_grad},
        "probabilities": rounded(F.softmax(net.logits(x, False), 1)),
    }


def networks():
    first = ("conv", 4, 1, 1, 0, 1)
    around = lambda text, *layers: (f"INPUT - CONV(4, 1) - {text} - FC", [first, *layers, ("fc",)])
    dense = "INPUT - FC(6) - RELU - FC", [("fc", 6), ("relu",), ("fc",)]
    soft = [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5], [0.0, 0.1, 0.9]]
    return [
        network("dense", *dense),
        network("label smoothing", *dense, smoothing=0.1),
        network("class weights", *dense, weights=[0.5, 1.0, 2.5]),
        network("label smoothing and class weights", *dense, smoothing=0.1, weights=[0.5, 1.0, 2.5]),
        network("soft targets", *dense, targets=soft),
        network("smoothed soft targets", *dense, smoothing=0.2, targets=soft),
        network("leaky ReLU", *around("LEAKY(0.2)", ("leaky", 0.2))),
        network("ELU", *around("ELU(0.7)", ("elu", 0.7))),
        network("ReLU and max pool", *around("RELU - POOL", ("relu",), ("pool", 2, 2, 0))),
        network("max pool", *around("POOL(3, 2, padding=1)", ("pool", 3, 2, 1))),
        network("average pool", *around("AVGPOOL(2)", ("avgpool", 2, 2, 0))),
        network("average pool with padding", *around("AVGPOOL(3, 2, padding=1)", ("avgpool", 3, 2, 1))),
        network("global average pool", *around("RELU - GAP", ("relu",), ("gap",))),
        network("convolution", *around("CONV(5, 3) - RELU", ("conv", 5, 3, 1, 1, 1), ("relu",))),
        network("strided convolution", *around("CONV(5, 3, 2, padding=1)", ("conv", 5, 3, 2, 1, 1))),
        network("grouped convolution", *around("CONV(6, 3, padding=0, groups=2)", ("conv", 6, 3, 1, 0, 2))),
        network("strided grouped convolution", *around("CONV(4, 2, 2, 1, groups=4)", ("conv", 4, 2, 2, 1, 4))),
        network("locally connected", *around("LOCAL(3, 3, 2, 1) - RELU", ("local", 3, 3, 2, 1), ("relu",))),
        network("batch normalisation", *around("BN - RELU", ("bn",), ("relu",))),
        network("batch normalisation and pool", *around("BN - RELU - POOL", ("bn",), ("relu",), ("pool", 2, 2, 0))),
        network(
            "batch normalisation of features",
            "INPUT - FC(6) - BN - ELU - FC",
            [("fc", 6), ("bn",), ("elu", 1.0), ("fc",)],
            n=7,
        ),
    ]


# ---- whole steps


def steps(name, clip=None, l2=0.0, weight_decay=0.0, decays_all=False):
    """Ten steps of SGD with Nesterov's momentum: clipping is of the gradient without L2, as PyTorch has it."""
    net = Net([("conv", 3, 3, 1, 1, 1), ("bn",), ("relu",), ("pool", 2, 2, 0), ("fc",)], (6, 5, 2), 3)
    x, y, rate = images(6, (6, 5, 2)), labels(6, 3), 0.05
    trained = net.trained()
    decayed = [t for name, t in trained.items() if decays_all or name.endswith("weights")]
    rest = [t for t in trained.values() if not any(t is d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": l2}] + ([{"params": rest, "weight_decay": 0.0}] if rest else [])
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    for _ in range(10):
        optimizer.zero_grad()
        loss_of(net.logits(x, True), y).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(trained.values()), clip)
        with torch.no_grad():
            for t in decayed:
                t *= 1 - rate * weight_decay
        if weight_decay > 0.0:
            assert l2 == 0.0, "L2 would see weights that have shrunk"
        optimizer.step()
    return {
        "name": name,
        "clip": clip,
        "l2": l2,
        "weight_decay": weight_decay,
        "decays_all": decays_all,
        "tensors": {name: rounded(t) for name, t in net.parameters.items()},
    }


# ---- optimizers


def optimizers():
    n = 19
    # Halves and eighths: exact in single precision.
    gradient = lambda t: torch.tensor([((i * 7 + t * t * 13) % 17) * 0.125 - 0.875 for i in range(n)])
    made = [
        ("sgd", lambda p, l2: torch.optim.SGD(p, lr=0.02, weight_decay=l2)),
        ("momentum", lambda p, l2: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=l2)),
        ("nesterov", lambda p, l2: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=l2)),
        ("adam", lambda p, l2: torch.optim.Adam(p, lr=0.02, weight_decay=l2)),
        ("adamw", lambda p, l2: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1 if l2 else 0.01)),
        ("rmsprop", lambda p, l2: torch.optim.RMSprop(p, lr=0.02, weight_decay=l2)),
        ("rmsprop-momentum", lambda p, l2: torch.optim.RMSprop(p, lr=0.02, momentum=0.5, weight_decay=l2)),
        ("adagrad", lambda p, l2: torch.optim.Adagrad(p, lr=0.02, weight_decay=l2)),
    ]
    cases = []
    for name, make in made:
        for l2 in (0.0, 0.01):
            w = tensor(0, (n,)).requires_grad_()
            optimizer = make([w], l2)
            after = {}
            for t in range(1, 101):
                w.grad = gradient(t)
                optimizer.step()
                if t in (1, 2, 10, 100):
                    after[str(t)] = rounded(w)
            cases.append({"name": name, "l2": l2, "after": after})
    return cases


# ---- schedules


def rates(make, n):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, out = make(optimizer), []
    for _ in range(n):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def plateau(mode, metrics):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=3, threshold=0.01, min_lr=0.02, eps=0.0
    )
    out = []
    for metric in metrics:
        schedule.step(metric)
        out.append(optimizer.param_groups[0]["lr"])
    return out


def schedules():
    S = torch.optim.lr_scheduler
    losses = [1.0 / (1 + 0.2 * t) + 0.05 * value(3, t) for t in range(100)]
    accuracies = [1 - 0.5 * x for x in losses]
    return {
        "step": rates(lambda o: S.StepLR(o, 7, 0.5), 100),
        "exponential": rates(lambda o: S.ExponentialLR(o, 0.95), 100),
        "cosine": rates(lambda o: S.CosineAnnealingLR(o, 99, 0.1), 100),
        "warm-up": rates(lambda o: S.LinearLR(o, 1 / 11, 1.0, 10), 10) + rates(lambda o: S.CosineAnnealingLR(o, 89), 90),
        "cycles": rates(lambda o: S.CosineAnnealingLR(o, 24), 25) * 4,
        "losses": losses,
        "plateau": plateau("min", losses),
        "accuracies": accuracies,
        "accuracy-plateau": plateau("max", accuracies),
    }


# ---- initialisers


def initialisers():
    init = torch.nn.init
    made = {
        "he-normal": lambda t: init.kaiming_normal_(t, nonlinearity="relu"),
        "he-uniform": lambda t: init.kaiming_uniform_(t, nonlinearity="relu"),
        "glorot-normal": init.xavier_normal_,
        "glorot-uniform": init.xavier_uniform_,
    }
    out = {}
    for name, fill in made.items():
        t = fill(torch.empty(128, 64, 3, 3))
        out[name] = {"deviation": t.std().item(), "largest": t.abs().max().item()}
    return {"fan_in": 64 * 9, "fan_out": 128 * 9, "n": 128 * 64 * 9, "of": out}


# ---- L-BFGS


def lbfgs():
    n, shape, n_classes, l2 = 24, (3, 2, 2), 3, 0.01
    net, x = Net([("fc", 5), ("elu", 1.0), ("fc",)], shape, n_classes), images(n, shape)
    y = torch.tensor([(i * 5 + i * i) % n_classes for i in range(n)])
    trained = net.trained()
    optimizer = torch.optim.LBFGS(list(trained.values()), max_iter=1, max_eval=100, history_size=4, line_search_fn="strong_wolfe")

    def objective():
        squares = sum((t * t).sum() for name, t in trained.items() if name.endswith("weights"))
        return loss_of(net.logits(x, True), y) + 0.5 * l2 * squares

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    losses = []
    for _ in range(60):
        optimizer.step(closure)
        losses.append(objective().item())
    return {"n": n, "shape": shape, "n_classes": n_classes, "l2": l2, "history": 4, "losses": losses}


print(
    json.dumps(
        {
            "networks": networks(),
            "steps": [
                steps("plain"),
                steps("clipped", clip=0.3),
                steps("L2 on weights", l2=0.02),
                steps("L2 on all, clipped", l2=0.02, clip=0.3, decays_all=True),
                steps("decoupled decay of weights", weight_decay=0.3),
                steps("decoupled decay of all", weight_decay=0.3, decays_all=True),
            ],
            "optimizers": optimizers(),
            "schedules": schedules(),
            "initialisers": initialisers(),
            "lbfgs": lbfgs(),
        },
        indent=None,
        separators=(",", ":"),
    )
)
