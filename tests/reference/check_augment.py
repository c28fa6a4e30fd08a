"""Checks `color-jitter`, `zoom` and `perspective` against torchvision: what they do to pixels, and what they draw.

    python tests/reference/check_augment.py

The definitions of `src/data/augment/` are written down here once more, from its documentation, on float64; the Rust tests pin the
program to the same numbers. Needs torch, torchvision and numpy.
"""

import math

import numpy as np
import torch
import torchvision.transforms.v2 as v2
from torchvision.transforms.v2 import functional as F

rng = np.random.default_rng(1)


def near(name, got, expected, most):
    difference = np.abs(np.asarray(got) - np.asarray(expected)).max()
    assert difference <= most, f"{name}: off by {difference}"
    print(f"{name}: off by {difference:.1e}")


def grey(image):
    return (image * [0.2989, 0.587, 0.114]).sum(-1, keepdims=True)


def blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 255)


def turn_hue(image, turn):
    out = image.copy()
    for pixel in out.reshape(-1, 3):
        red, green, blue = pixel
        most, least = pixel.max(), pixel.min()
        width = most - least
        if width == 0:
            continue
        if most == red:
            hue = (green - blue) / width
        elif most == green:
            hue = 2 + (blue - red) / width
        else:
            hue = 4 + (red - green) / width
        hue = (hue + 6 * turn) % 6
        share = hue - int(hue)
        up, down = least + width * share, most - width * share
        pixel[:] = [
            (most, up, least), (down, most, least), (least, most, up),
            (least, down, most), (up, least, most), (most, least, down),
        ][int(hue)]
    return out


def zoom(image, top, left, tall, wide):
    height, width = image.shape[:2]

    def taps(start, size, n):
        place = np.maximum((np.arange(n) + 0.5) * (size / n) - 0.5, 0)
        first = np.minimum(place.astype(int), size - 1)
        return start + first, start + np.minimum(first + 1, size - 1), place - first

    y0, y1, ys = taps(top, tall, height)
    x0, x1, xs = taps(left, wide, width)
    xs, ys = xs[None, :, None], ys[:, None, None]
    rows = lambda y: image[y][:, x0] * (1 - xs) + image[y][:, x1] * xs
    return rows(y0) * (1 - ys) + rows(y1) * ys


def tilt(image, corners):
    """Heckbert's map from the unit square to the corners, inverted; taps beyond the image are black."""
    height, width = image.shape[:2]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    square = np.array([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1]])
    back = np.diag([width - 1, height - 1, 1]) @ np.linalg.inv(square)
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    places = np.einsum("ij,jyx->iyx", back, np.stack([xs, ys, np.ones_like(xs)]))
    x, y = places[0] / places[2] - 0.5, places[1] / places[2] - 0.5
    x_low, y_low = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros_like(image)
    for down in (0, 1):
        for right in (0, 1):
            row, column = y_low + down, x_low + right
            weight = np.abs(1 - down - (y - y_low)) * np.abs(1 - right - (x - x_low))
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            taken = image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            out += np.where(inside, weight, 0)[..., None] * taken
    return out


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def array(tensor):
    return tensor.permute(1, 2, 0).numpy()


image = rng.uniform(0, 255, (23, 31, 3))
unit = tensor(image / 255)
for factor in (0.3, 1.0, 1.7):
    near(f"brightness {factor}", np.clip(image * factor, 0, 255), 255 * array(F.adjust_brightness(unit, factor)), 1e-9)
    near(f"contrast {factor}", blend(image, grey(image).mean(), factor), 255 * array(F.adjust_contrast(unit, factor)), 1e-9)
    near(f"saturation {factor}", blend(image, grey(image), factor), 255 * array(F.adjust_saturation(unit, factor)), 1e-9)
for turn in (-0.5, -0.13, 0.02, 0.4):
    near(f"hue {turn}", turn_hue(image, turn), 255 * array(F.adjust_hue(unit, turn)), 1e-3)
for part in ((0, 0, 23, 31), (3, 7, 9, 12), (20, 0, 1, 31), (5, 30, 11, 1)):
    top, left, tall, wide = part
    expected = F.resized_crop(tensor(image), top, left, tall, wide, [23, 31], antialias=True)
    near(f"zoom {part}", zoom(image, *part), array(expected), 1e-9)
start = [[0, 0], [30, 0], [30, 22], [0, 22]]
for end in (start, [[3, 2], [28, 0], [30, 20], [1, 17]], [[7, 5], [23, 5], [30, 22], [0, 22]]):
    expected = F.perspective(tensor(image), start, end, fill=None)
    near(f"perspective {end}", tilt(image, end), array(expected), 2e-2)

# What is drawn: the area and the ratio of a part, and where corners go.
height, width, n = 60, 40, 4000
parts = v2.RandomResizedCrop((height, width), scale=(0.2, 0.5), ratio=(0.5, 2.0))
drawn = [parts.make_params([torch.zeros(3, height, width)]) for _ in range(n)]
theirs = np.array([part["height"] * part["width"] / (height * width) for part in drawn])


def draw_part():
    for _ in range(10):
        area = height * width * rng.uniform(0.2, 0.5)
        ratio = math.exp(rng.uniform(math.log(0.5), math.log(2)))
        wide, tall = int(math.sqrt(area * ratio) + 0.5), int(math.sqrt(area / ratio) + 0.5)
        if 1 <= wide <= width and 1 <= tall <= height:
            return tall * wide / (height * width)
    raise AssertionError("ten tries are enough here")


ours = np.array([draw_part() for _ in range(n)])
quantiles = np.linspace(0.05, 0.95, 10)
near("area of a zoom, quantiles", np.quantile(ours, quantiles), np.quantile(theirs, quantiles), 0.015)
print("mean area:", ours.mean(), "theirs:", theirs.mean())
tilts = v2.RandomPerspective(0.5, p=1.0)
ends = np.array([tilts.make_params([torch.zeros(3, height, width)])["coefficients"] for _ in range(10)])
assert np.isfinite(ends).all()
legacy = __import__("torchvision.transforms", fromlist=["RandomPerspective"]).RandomPerspective
corners = np.array([legacy.get_params(width, height, 0.5)[1] for _ in range(n)])
moves = np.abs(corners - np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]))
assert moves[..., 0].max() == 10 and moves[..., 1].max() == 15, moves.max((0, 1))
near("mean moves of corners", moves.mean((0, 1)), [5, 7.5], 0.1)
print("all agree")
