"""Checks what `convoy export` writes with other people's programs: ONNX by onnx's checker and ONNX Runtime, NPZ by NumPy,
event files by TensorBoard's reader.

    python tests/reference/check_exports.py CONVOY FOLDER [--data DIR] [--float64] [--markdown FILE] [--only NAME]

Trains small networks in FOLDER, which must be empty: every kind of layer, every transform and reduction, every rule of
ensembles, every shipped pipeline (those on MNIST and CIFAR-10 where DIR has `mnist/` and `cifar10-jpg.tar.gz`). Of each model 64
images go through `convoy predict` and through ONNX Runtime: probabilities may differ by 1e-5, classes not at all. With
--float64 the table has what both are off by when the same graph is computed in double precision; FILE gets it as Markdown.

Needs numpy, onnx, onnxruntime, tensorboard; pillow for CIFAR-10.
"""

import argparse
import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import time
import tomllib

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCE = 1e-5
N = 64


class Failed(Exception):
    pass


def must(holds, what):
    if not holds:
        raise Failed(what)


# ---- images

def idx(path):
    with gzip.open(path) as file:
        data = file.read()
    shape = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def pnm(path, image):
    """Writes [height, width, channels] of 8 or 16 bits."""
    h, w, c = image.shape
    most = 65535 if image.dtype == np.uint16 else 255
    with open(path, "wb") as file:
        file.write(f"P{5 if c == 1 else 6}\n{w} {h}\n{most}\n".encode())
        file.write(image.astype(">u2" if most > 255 else np.uint8).tobytes())


def blobs(n, shape, dtype, seed):
    """Images of three classes that differ in where they are bright."""
    draw = np.random.default_rng(seed)
    h, w, c = shape
    y, x = np.mgrid[:h, :w]
    images = []
    for i in range(n):
        label = i % 3
        centre = (h * (label + 1) / 4 + draw.normal(), w * (3 - label) / 4 + draw.normal())
        bright = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (h + w))
        noisy = bright[:, :, None] * draw.uniform(0.5, 1.0, c) + draw.uniform(0, 0.25, shape)
        images.append((np.clip(noisy, 0, 1) * np.iinfo(dtype).max).astype(dtype))
    return np.array(images)


def cifar(path):
    from PIL import Image
    images = []
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                images.append(np.array(Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")))
            if len(images) == N:
                return np.array(images)


# ---- networks

LAYERS = {
    "fc": "INPUT - FC",
    "fc-without-bias": "INPUT - FC(12, bias=false) - RELU - FC",
    "flatten": "INPUT - FLATTEN - FC(9) - LEAKY(0.2) - FC",
    "conv": "INPUT - CONV(8) - RELU - CONV(6) - RELU - FC",
    "conv-winograd": "INPUT - CONV(8) - CONV(10, 3, 1, valid) - RELU - CONV(8, convolution=direct) - FC",
    "conv-strided": "INPUT - CONV(6, [3, 2], [2, 3], same) - ELU(0.7) - CONV(5, 3, 2, 1) - FC",
    "conv-dilated": "INPUT - CONV(6, 3, dilation=2) - RELU - CONV(4, [2, 3], dilation=[2, 1], padding=valid) - FC",
    "conv-grouped": "INPUT - CONV(8, bias=false) - RELU - CONV(12, 3, groups=4) - RELU - CONV(6, 1, groups=2) - FC",
    "local": "INPUT - LOCAL(5, 3, 2) - RELU - LOCAL(4, [2, 3], [1, 2], valid) - RELU - FC",
    "local-without-bias": "INPUT - CONV(5) - RELU - LOCAL(3, 3, bias=false) - POOL - FC",
    "leaky": "INPUT - LEAKY - CONV(6) - LEAKY(0.3) - FC",
    "elu": "INPUT - ELU - CONV(6) - ELU(0.5) - FC(8) - ELU - FC",
    "pool": "INPUT - CONV(6) - RELU - POOL - CONV(6) - POOL(3, 2, same) - FC",
    "pool-overlapping": "INPUT - CONV(5) - POOL([3, 2], 1) - RELU - POOL(3, [1, 2], 1) - FC",
    "avgpool": "INPUT - CONV(6) - RELU - AVGPOOL - AVGPOOL([2, 3], 2, same) - FC",
    "gap": "INPUT - CONV(8) - RELU - CONV(12) - RELU - GAP - FC",
    "bn": "INPUT - BN - CONV(8, bias=false) - BN(0.8, 1e-3) - RELU - POOL - CONV(8) - BN - POOL - FC",
    "bn-flat": "INPUT - FC(16, bias=false) - BN - RELU - FC",
    "dropout-noise": "INPUT - NOISE(0.1) - CONV(6) - RELU - DROPOUT(0.25) - FC(8) - DROPOUT - FC",
    "deep": "INPUT - [[CONV(8) - BN - RELU]*2 - POOL]*2 - DROPOUT(0.25) - FC(16) - RELU - FC",
}

HEAD = """schema = 1
seed = 3

[stages.ingest]
source = "{source}"
{ingest}
[stages.split]
test = 0.25
folds = {folds}
"""


def manifest(source, stages, ingest="", folds=1):
    return HEAD.format(source=source, ingest=ingest, folds=folds) + stages


def train(name, reads, architecture, more="", epochs=1):
    return f"""
[stages.{name}]
kind = "train"
input = "{reads}"
architecture = "{architecture}"
epochs = {epochs}
batch_size = 16
learning_rate = 0.003
last_layer_gain = 1.0
sanity = false
{more}
"""


def chain(name, reads, body):
    return f'\n[stages.{name}]\nkind = "{body[0]}"\ninput = "{reads}"\n{body[1]}\n'


TRANSFORMS = {
    "nothing": "[]",
    "center": '["center"]',
    "center-pixel": '[{ center = "pixel" }]',
    "center-global": '[{ center = "global" }]',
    "scale": '["center", "scale"]',
    "scale-pixel": '[{ center = "pixel" }, { scale = { to = "unit-variance", per = "pixel" } }]',
    "scale-range": '[{ scale = { to = [-1, 1], per = "global" } }]',
    "divide": "[{ divide = 255 }]",
    "standardize": '["standardize-image"]',
    "standardize-between": '[{ center = "pixel" }, "standardize-image", { divide = 2 }, { center = "channel" }]',
}

REDUCTIONS = {
    "pca": "{ pca = { components = 12 } }",
    "pca-variance": "{ pca = { variance = 0.9 } }",
    "whitening": "{ pca = { components = 10, whiten = true, epsilon = 1e-2 } }",
    "zca": "{ pca = { zca = true, epsilon = 1e-2 } }",
    "gaussian": "{ gaussian-projection = { components = 20 } }",
    "sparse": "{ sparse-projection = { components = 20 } }",
}


def transforms():
    text = ""
    for name, steps in TRANSFORMS.items():
        text += chain(f"t-{name}", "split", ("preprocess", f"steps = {steps}"))
        text += train(name, f"t-{name}", "INPUT - CONV(4) - RELU - FC")
    return text


def reductions():
    text = chain("divided", "split", ("preprocess", 'steps = [{ divide = 255 }]'))
    for name, method in REDUCTIONS.items():
        text += chain(f"r-{name}", "divided", ("reduce", f"method = {method}"))
        architecture = "INPUT - CONV(4) - RELU - FC" if name == "zca" else "INPUT - FC(8) - RELU - FC"
        text += train(name, f"r-{name}", architecture)
    # Transforms behind a reduction, a reduction behind a reduction, and one of raw bytes.
    text += chain("after", "r-pca", ("preprocess", 'steps = ["center", "scale", "standardize-image"]'))
    text += train("pca-scaled", "after", "INPUT - FC(8) - BN - RELU - FC")
    text += chain("again", "after", ("reduce", "method = { gaussian-projection = { components = 6 } }"))
    text += train("twice", "again", "INPUT - FC")
    text += chain("zca-again", "r-zca", ("preprocess", 'steps = ["standardize-image", { center = "pixel" }]'))
    text += train("zca-scaled", "zca-again", "INPUT - CONV(4) - RELU - GAP - FC")
    text += chain("raw", "split", ("reduce", "method = { sparse-projection = { components = 9 } }"))
    text += chain("raw-scaled", "raw", ("preprocess", 'steps = ["center", "scale"]'))
    return text + train("raw-net", "raw-scaled", "INPUT - FC")


def ensembles():
    text = chain("images", "split", ("preprocess", 'steps = ["center", "scale"]'))
    text += train("cnn", "images", "INPUT - CONV(6) - RELU - POOL - FC", epochs=2)
    text += train("mlp", "images", "INPUT - FC(12) - RELU - FC", 'final = "refit"')
    text += train("linear", "images", "INPUT - FC", 'snapshots = 2', epochs=4)

    def ensemble(name, members, combine):
        return f'\n[stages.{name}]\nkind = "ensemble"\nmembers = {json.dumps(members)}\ncombine = {combine}\n'
    text += ensemble("folds", ["cnn"], '"mean-probability"')
    text += ensemble("mean", ["cnn", "mlp", "linear"], '"mean-probability"')
    text += ensemble("vote", ["cnn", "mlp", "linear"], '"vote"')
    text += ensemble("weighted", ["cnn", "mlp", "linear"], '"weighted"')
    text += ensemble("stacking", ["cnn", "mlp"], "{ stacking = { l2 = 0.01 } }")
    return text + ensemble("nested", ["vote", "stacking"], '"mean-probability"')


def trusted():
    """Test-time augmentation, and temperatures of networks and ensembles."""
    text = chain("images", "split", ("preprocess", 'steps = [{ center = "pixel" }, "scale"]'))
    views = {
        "flip": '["flip"]',
        "shift": "[{ shift = 2 }]",
        "both": '[{ flip = "both" }, { shift = { pixels = 1, fill = "edge" } }]',
        "reflected": '["flip", { shift = { pixels = 3, fill = "reflect" } }]',
    }
    for name, predict in views.items():
        text += train(name, "images", "INPUT - CONV(6) - BN - RELU - POOL - FC", f"predict = {predict}")
    text += chain("zca", "images", ("reduce", "method = { pca = { zca = true, epsilon = 1e-2 } }"))
    text += chain("again", "zca", ("preprocess", 'steps = ["standardize-image"]'))
    text += train("zca-flip", "again", "INPUT - CONV(4) - RELU - FC", 'predict = ["flip"]\ncalibrate = "temperature"')
    text += train("tempered", "images", "INPUT - FC", 'calibrate = "temperature"')
    for rule in ("mean-probability", "vote", "weighted", "stacking"):
        text += f'''\n[stages.e-{rule}]\nkind = "ensemble"\nmembers = ["flip", "tempered"]
combine = "{rule}"\ncalibrate = "temperature"\n'''
    return text


def names(kind, text):
    """Stages of this kind, in order."""
    return [name for name, keys in tomllib.loads(text)["stages"].items() if keys.get("kind", name) == kind]


# ---- what is checked

class Checks:
    def __init__(self, arguments):
        self.convoy, self.folder = os.path.abspath(arguments.convoy), os.path.abspath(arguments.folder)
        self.is_double, self.rows, self.noticed = arguments.float64, [], set()

    def run(self, *words):
        done = subprocess.run([self.convoy, *words], cwd=self.folder, capture_output=True, text=True)
        must(done.returncode == 0, f"convoy {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def images(self, name, images):
        """Writes them as files; their paths, in order."""
        ending = "pgm" if images.shape[3] == 1 else "ppm"
        os.makedirs(os.path.join(self.folder, name))
        paths = [os.path.join(name, f"{i:02}.{ending}") for i in range(len(images))]
        for path, image in zip(paths, images):
            pnm(os.path.join(self.folder, path), image)
        return paths

    def model(self, group, name, source, images, paths, arguments=()):
        """Compares one model; `source` is a manifest and its overrides, or an exported file."""
        stage = ["--stage", name] if source.endswith(".toml") else []
        file = os.path.join("exported", f"{group}-{name}.onnx")
        self.run("export", "onnx", source, *stage, *arguments, "-o", file)
        path = os.path.join(self.folder, file)
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
        must(model.ir_version == 7 and [o.version for o in model.opset_import] == [13], "versions")
        for value in [*model.graph.input, *model.graph.output]:
            must(value.type.tensor_type.shape.dim[0].dim_param == "batch", f"batch of {value.name}")
        table = self.run("predict", source, *stage, *arguments, "-q", *paths).splitlines()
        header, *lines = [line.split(",") for line in table]
        ours = np.array([[float(cell) for cell in line[3:]] for line in lines])
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        classes = json.loads(metadata["classes"])
        must([f"p_{c}" for c in classes] == header[3:], "classes")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        theirs, label = session.run(["probabilities", "label"], {"images": images})
        must(theirs.dtype == np.float32 and label.dtype == np.int64 and label.shape == (len(images),), "types")
        difference = np.abs(ours - theirs).max()
        row = [group, name, len(images), difference]
        if self.is_double:
            exact = double(model, images)
            row += [np.abs(ours - exact).max(), np.abs(theirs - exact).max()]
        self.rows.append(row)
        must(difference <= TOLERANCE, f"probabilities differ by {difference:.2e}")
        must([classes[i] for i in label] == [line[1] for line in lines], "classes of images differ")
        # What says the same of every image would agree with anything.
        must(np.ptp(theirs, axis=0).max() > 0.02, f"says the same of every image: {theirs[:3]}")
        # Of answers that are sure nothing moves by a hundredth.
        if group not in self.noticed and (ours.max(axis=1) < 0.9).sum() > 4:
            self.noticed.add(group)
            self.notices(model, images, ours)
        for n in (1, 3):
            part, of_part = session.run(None, {"images": images[:n]})
            must(np.abs(part - theirs[:n]).max() <= 1e-6 and list(of_part) == list(label[:n]), f"a batch of {n}")
        return ours, metadata

    @staticmethod
    def notices(model, images, ours):
        """The comparison itself: weights that are off by a hundredth must fail it."""
        for tensor in model.graph.initializer:
            if re.fullmatch(r"members\.0\.network\..*\.weights", tensor.name):
                kept = tensor.raw_data
                tensor.raw_data = (np.frombuffer(kept, np.float32) * np.float32(1.01)).tobytes()
                session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
                changed = session.run(["probabilities"], {"images": images})[0]
                must(np.abs(changed - ours).max() > TOLERANCE, f"nobody notices wrong numbers of {tensor.name}")
                tensor.raw_data = kept

    def group(self, group, text, images):
        """A manifest with several models on the same images."""
        with open(os.path.join(self.folder, f"{group}.toml"), "w") as file:
            file.write(text)
        paths = self.images(f"{group}-images", images)
        source = f"{group}.toml"
        self.run("run", "-q", source)
        models = names("train", text) + names("ensemble", text)
        for name in models:
            try:
                ours, metadata = self.model(group, name, source, images, paths)
                self.npz(group, name, source, images, ours, metadata)
            except Exception as error:
                raise Failed(f"{group}, {name}: {error}") from error
        self.tensorboard(group, source)

    def npz(self, group, name, source, images, ours, metadata):
        at = os.path.join("exported", f"{group}-{name}")
        for form in ("npz", "safetensors"):
            self.run("export", form, source, "--stage", name, "-o", f"{at}.{form}")
        with open(os.path.join(self.folder, f"{at}.safetensors"), "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            tensors, data = json.loads(file.read(length)), file.read()
        envelope = json.loads(tensors.pop("__metadata__")["convoy"])
        must(envelope["digest"] == metadata["digest"], "digests of the ONNX and the safetensors file")
        with np.load(os.path.join(self.folder, f"{at}.npz"), allow_pickle=False) as arrays:
            index = json.loads(str(arrays["index"]))
            must(list(arrays["classes"]) == envelope["model"]["classes"], "classes of the NPZ file")
            must(index["digest"] == envelope["digest"] and index["model"] == envelope["model"], "index of the NPZ file")
            must(set(arrays.files) == set(tensors) | {"classes", "index"}, "arrays of the NPZ file")
            must(set(index["arrays"]) == set(tensors), "arrays in the index")
            for key, tensor in tensors.items():
                dtype = {"F32": "<f4", "F64": "<f8"}[tensor["dtype"]]
                first, last = tensor["data_offsets"]
                expected = np.frombuffer(data[first:last], dtype).reshape(tensor["shape"])
                about = index["arrays"][key]
                must(np.array_equal(arrays[key], expected) and arrays[key].dtype == expected.dtype, f"array {key}")
                must(about["shape"] == tensor["shape"] and about["dtype"] == str(expected.dtype) and about["is"], key)
            by_hand = of_arrays(arrays, index, images)
        if by_hand is not None:
            must(np.abs(by_hand - ours).max() <= TOLERANCE, f"NPZ by NumPy: off by {np.abs(by_hand - ours).max():.2e}")
            self.n_by_hand = getattr(self, "n_by_hand", 0) + 1

    def tensorboard(self, group, source):
        self.run("export", "tensorboard", source)
        name = source.removesuffix(".toml")
        directory, n = os.path.join(self.folder, "out", name, "tensorboard"), 0
        with open(os.path.join(self.folder, "out", name, "epochs.csv")) as file:
            header, *rows = [line.rstrip("\n").split(",") for line in file]
        for row in rows:
            cells = dict(zip(header, row))
            part = f"fold-{cells['fold']}" if cells["fold"] else "all"
            for column, cell in cells.items():
                run, tag = {"train_": ("train", column[6:]), "valid_": ("validation", column[6:])}.get(
                    column[:6], ("train", column))
                if column in ("stage", "trial", "fold", "epoch", "step") or not cell:
                    continue
                where = os.path.join(directory, cells["stage"], cells["trial"], part, run)
                events = self.events(where).Scalars(tag)
                found = [event.value for event in events if event.step == int(cells["epoch"])]
                must(found == [np.float32(cell)], f"{group}: {where}, {tag}: {found} for {cell}")
                must(all(event.wall_time == 0 for event in events), "a time")
                n += 1
        must(n > 0, "no scalar")
        self.n_scalars = getattr(self, "n_scalars", 0) + n

    def events(self, where):
        known = self.__dict__.setdefault("known", {})
        if where not in known:
            known[where] = EventAccumulator(where, size_guidance={"scalars": 0})
            known[where].Reload()
        return known[where]


def of_arrays(arrays, index, images):
    """A linear model by what the index says of its arrays, in double precision; `None` for other models."""
    model = index["model"]
    if list(model["answer"]) != ["member"] or not re.fullmatch("INPUT - FC", model["members"][0]["network"]["architecture"]):
        return None
    x = images.astype(np.float64)
    for k, link in enumerate(model["members"][0]["chain"]):
        own = f"members.0.chain.{k}."
        for i, step in enumerate(link.get("transform", {}).get("steps", [])):
            if step["kind"] == "affine":
                s, m, a = (arrays[f"{own}{i}.{word}"] for word in ("subtract", "multiply", "add"))
                flat = x.reshape(len(x), -1)
                s, m, a = (np.tile(n, flat.shape[1] // len(n)) for n in (s, m, a))
                x = ((flat - s) * m + a).reshape(x.shape)
            else:
                flat = x.reshape(len(x), -1)
                deviation = np.maximum(flat.std(1, keepdims=True), 1 / np.sqrt(flat.shape[1]))
                x = ((flat - flat.mean(1, keepdims=True)) / deviation).reshape(x.shape)
        if "projection" in link:
            x = x.reshape(len(x), -1)
            mean = arrays[f"{own}mean"]
            x = (x - mean if mean.size else x) @ arrays[f"{own}weights"].astype(np.float64)
    scores = x.reshape(len(x), -1) @ arrays["members.0.network.1.fc.weights"].astype(np.float64)
    scores += arrays["members.0.network.1.fc.bias"]
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def double(model, images):
    """The same graph with every number in double precision, computed by onnx's reference in NumPy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # The reference normalises by the batch's own moments before opset 14; what else is used here means the same in 17.
    copy.opset_import[0].version = 17
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    copy.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return ReferenceEvaluator(copy).run(["probabilities"], {"images": images})[0]


def pipelines(checks, data):
    digits = idx(os.path.join(ROOT, "datasets/digits/digits-images-idx3-ubyte.gz"))[:N, :, :, None]
    for file in sorted(os.listdir(os.path.join(ROOT, "pipelines"))):
        with open(os.path.join(ROOT, "pipelines", file)) as opened:
            text = opened.read()
        name = file.removesuffix(".toml")
        with open(os.path.join(checks.folder, file), "w") as copy:
            copy.write(text)
        sets = [f"stages.{stage}.epochs=1" for stage in names("train", text)]
        sets += [f"stages.{stage}.sanity=false" for stage in names("train", text)]
        if "gates" in text:
            sets.append("stages.evaluate.gates={}")
        arguments = []
        if 'source = "builtin:digits"' in text:
            images = digits
            sets.append("stages.split.folds=2")
        elif 'source = "mnist"' in text:
            if not data or not os.path.isdir(os.path.join(data, "mnist")):
                print(f"!! {name} is SKIPPED: no MNIST here")
                continue
            images = idx(os.path.join(data, "mnist/t10k-images-idx3-ubyte.gz"))[:N, :, :, None]
            sets.append("stages.ingest.limit=1200")
            arguments += ["--data-dir", data]
        else:
            archive = data and os.path.join(data, "cifar10-jpg.tar.gz")
            if not archive or not os.path.exists(archive):
                print(f"!! {name} is SKIPPED: no CIFAR-10 here")
                continue
            images = cifar(archive)
            sets += [f"stages.ingest.source={archive}", "stages.ingest.limit=1000"]
        if "rounds" in text:
            sets += ["stages.search.rounds=[{ trials = 3, epochs = 1, keep = 3 }, {}]", "stages.split.folds=2"]
        arguments += [word for line in sets for word in ("--set", line)]
        try:
            checks.run("run", "-q", file, *arguments)
            paths = checks.images(f"{name}-images", images)
            for model in names("ensemble", text) or names("train", text):
                checks.model(f"pipelines/{name}", model, file, images, paths, arguments)
        except Exception as error:
            raise Failed(f"{file}: {error}") from error


def page(checks):
    """The blocks of docs/export.md run as they stand there."""
    folder = os.path.join(checks.folder, "page")
    os.makedirs(os.path.join(folder, ".git"))
    with open(os.path.join(folder, "digits.toml"), "w") as file:
        steps = chain("preprocess", "split", ("preprocess", 'steps = ["center", "scale"]'))
        net = train("train", "preprocess", "INPUT - CONV(4) - RELU - FC")
        file.write(manifest("builtin:digits", steps + net + "\n[stages.ensemble]\n", "limit = 300", folds=2))
    with open(os.path.join(ROOT, "docs", "export.md")) as file:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", file.read(), re.M | re.S)
    must(sorted(language for language, _ in blocks) == ["python", "python", "sh"], f"blocks of the page: {blocks}")
    path = os.pathsep.join([os.path.dirname(checks.convoy), os.environ["PATH"]])
    commands = ["convoy run -q digits.toml", "convoy export npz digits.toml", "convoy export tensorboard digits.toml"]
    for command in [commands[0], *(text for language, text in blocks if language == "sh"), *commands[1:]]:
        subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    for text in (text for language, text in blocks if language == "python"):
        subprocess.run([sys.executable, "-c", text], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("convoy")
    parser.add_argument("folder")
    parser.add_argument("--data")
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--markdown")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    checks = Checks(arguments)
    os.makedirs(os.path.join(checks.folder, ".git"))
    os.makedirs(os.path.join(checks.folder, "exported"))
    for name, shape, dtype in [("rgb", (11, 13, 3), np.uint8), ("deep", (9, 8, 1), np.uint16)]:
        images = blobs(240, shape, dtype, 1)
        for i, image in enumerate(images):
            folder = os.path.join(checks.folder, name, "abc"[i % 3])
            os.makedirs(folder, exist_ok=True)
            pnm(os.path.join(folder, f"{i:03}.{'pgm' if shape[2] == 1 else 'ppm'}"), image)
    rgb, deep = blobs(N, (11, 13, 3), np.uint8, 2), blobs(N, (9, 8, 1), np.uint16, 2)
    steps = chain("images", "split", ("preprocess", 'steps = [{ center = "channel" }, "scale"]'))
    layers = steps + "".join(train(name, "images", text) for name, text in LAYERS.items())
    of_depth = chain("images", "split", ("preprocess", 'steps = ["center", "scale"]'))
    of_depth += train("deep-scaled", "images", LAYERS["conv"])
    of_depth += chain("each", "split", ("preprocess", 'steps = ["standardize-image"]'))
    of_depth += train("deep-standardized", "each", LAYERS["conv"])
    of_depth += chain("axes", "split", ("reduce", "method = { pca = { components = 8, whiten = true } }"))
    of_depth += train("deep-pca", "axes", "INPUT - FC")
    groups = {
        "layers": lambda: checks.group("layers", manifest("rgb", layers), rgb),
        "transforms": lambda: checks.group("transforms", manifest("rgb", transforms()), rgb),
        "linear": lambda: checks.group("linear", manifest("rgb", linear()), rgb),
        "reductions": lambda: checks.group("reductions", manifest("rgb", reductions()), rgb),
        "ensembles": lambda: checks.group("ensembles", manifest("rgb", ensembles(), folds=3), rgb),
        "trusted": lambda: checks.group("trusted", manifest("rgb", trusted(), folds=2), rgb),
        "depth": lambda: checks.group("depth", manifest("deep", of_depth), deep),
        "page": lambda: page(checks),
        "pipelines": lambda: pipelines(checks, arguments.data and os.path.abspath(arguments.data)),
    }
    failure = None
    for name, check in groups.items():
        if arguments.only in (None, name):
            start = time.perf_counter()
            try:
                check()
            except (Failed, subprocess.CalledProcessError) as error:
                failure = error
            print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
            if failure:
                break
    told(checks, arguments.markdown)
    if failure:
        sys.exit(f"FAILED: {failure}")
    print(f"{len(checks.rows)} models agree within {TOLERANCE}, {getattr(checks, 'n_by_hand', 0)} of them by NPZ and NumPy "
          f"as well; {getattr(checks, 'n_scalars', 0)} scalars read by TensorBoard")


def linear():
    text = ""
    for name, steps in TRANSFORMS.items():
        if name != "nothing":
            text += chain(f"t-{name}", "split", ("preprocess", f"steps = {steps}"))
            text += train(name, f"t-{name}", "INPUT - FC")
    text += chain("axes", "t-divide", ("reduce", "method = { pca = { components = 9, whiten = true } }"))
    text += train("pca", "axes", "INPUT - FC")
    text += chain("scaled", "axes", ("preprocess", 'steps = ["center", { scale = { to = [0, 1] } }]'))
    return text + train("pca-scaled", "scaled", "INPUT - FC")


def told(checks, markdown):
    head = ["group", "model", "images", "Convoy and ONNX Runtime"]
    if checks.is_double:
        head += ["Convoy and double", "ONNX Runtime and double"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in checks.rows:
        lines.append("| " + " | ".join(f"{cell:.1e}" if isinstance(cell, np.floating) else str(cell) for cell in row) + " |")
    print("\n".join(lines))
    if markdown:
        with open(markdown, "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
