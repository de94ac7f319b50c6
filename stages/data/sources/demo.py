"""The demo data set: 100 classes, 20 shapes in 5 textures each, drawn at random; offline, in seconds.

A superclass is a shape, a class a shape in a texture ("checked star"). Colours, background, position, size, tilt, light
and noise are random for each image and say nothing about its class; but the shape is light, its texture dark, and
the background darker than the shape: enough for a short training to learn from, not enough for a linear model
(reports/demo.json has the figures of both).
"""

from collections.abc import Callable

import numpy as np

from stages.data.sources.cifar_binary import IMAGE_SIZE, Archive, Records

TEXTURES = ("plain", "striped", "checked", "dotted", "ringed")


def counts(train_per_class: int, test_per_class: int) -> dict[str, int]:
    """How many records train and test hold."""
    return {"train": len(CLASSES) * train_per_class, "test": len(CLASSES) * test_per_class}


def generate(train_per_class: int, test_per_class: int, seed: int) -> Archive:
    """Draw the whole set. The same seed and sizes give the same pixels; train and test share no random numbers."""
    return Archive(
        train=_records(train_per_class, np.random.default_rng((seed, 0))),
        test=_records(test_per_class, np.random.default_rng((seed, 1))),
        class_names=list(CLASSES),
        superclass_names=list(SHAPES),
    )


def _edge(distance: np.ndarray) -> np.ndarray:
    """Coverage between 0 and 1 from a signed distance in units of the shape's radius, positive inside."""
    return np.clip(distance * 6 + 0.5, 0, 1)


def _polygon(x: np.ndarray, y: np.ndarray, corners: int, turn: float = 0.0, inner: float | None = None) -> np.ndarray:
    """Inside of a regular polygon of circumradius 1, or of a star whose inner corners lie at radius `inner`."""
    angle = np.mod(np.arctan2(x, -y) + turn, 2 * np.pi / corners)
    angle = np.abs(angle - np.pi / corners)  # 0 in the middle of a side, pi / corners at a corner
    radius = np.hypot(x, y)
    if inner is None:
        return np.cos(np.pi / corners) - radius * np.cos(angle)
    # The straight line from an outer corner (angle pi / corners, radius 1) to an inner one (angle 0, radius inner).
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    ox, oy = np.cos(np.pi / corners), np.sin(np.pi / corners)
    nx, ny = oy, inner - ox  # normal of that line, outwards
    length = np.hypot(nx, ny)
    return ((inner - px) * nx - py * ny) / length


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.minimum(width - np.abs(x), height - np.abs(y))


# x runs to the right, y downwards, both about -1 to 1 over the shape; positive inside. Mirroring left to right must
# not turn one shape into another, for training mirrors images.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: 0.9 - np.hypot(x, y),
    "ring": lambda x, y: 0.3 - np.abs(np.hypot(x, y) - 0.68),
    "square": lambda x, y: _box(x, y, 0.78, 0.78),
    "frame": lambda x, y: np.minimum(_box(x, y, 0.88, 0.88), -_box(x, y, 0.4, 0.4)),
    "triangle": lambda x, y: _polygon(x, y - 0.2, 3),
    "funnel": lambda x, y: _polygon(x, y + 0.2, 3, np.pi / 3),
    "diamond": lambda x, y: (1 - np.abs(x) * 1.5 - np.abs(y)) * 0.7,
    "hexagon": lambda x, y: _polygon(x, y, 6),
    "star": lambda x, y: _polygon(x, y, 5, inner=0.42),
    "cross": lambda x, y: np.maximum(_box(x, y, 0.32, 0.95), _box(x, y, 0.95, 0.32)),
    "saltire": lambda x, y: np.maximum(
        _box((x + y) * 0.71, (x - y) * 0.71, 0.28, 1.05), _box((x + y) * 0.71, (x - y) * 0.71, 1.05, 0.28)
    ),
    "bar": lambda x, y: _box(x, y, 1.0, 0.4),
    "pillar": lambda x, y: _box(x, y, 0.4, 1.0),
    "moon": lambda x, y: np.minimum(0.95 - np.hypot(x, y), np.hypot(x, y + 0.45) - 0.7),
    "heart": lambda x, y: 0.75 - np.hypot(x, (-y + 0.1) * 1.1 - np.sqrt(np.abs(x) + 1e-3) * 0.62),
    "arrow": lambda x, y: np.maximum(
        np.minimum(np.minimum(0.05 - y, y + 0.95 - np.abs(x)), 0.9 - np.abs(x)), _box(x, y - 0.45, 0.28, 0.5)
    ),
    "hourglass": lambda x, y: np.minimum(0.9 - np.abs(y), np.abs(y) * 0.9 + 0.08 - np.abs(x)),
    "bowtie": lambda x, y: np.minimum(0.9 - np.abs(x), np.abs(x) * 0.9 + 0.08 - np.abs(y)),
    "tee": lambda x, y: np.maximum(_box(x, y + 0.6, 0.9, 0.3), _box(x, y - 0.25, 0.28, 0.65)),
    "dumbbell": lambda x, y: np.maximum(0.42 - np.hypot(np.abs(x) - 0.58, y), _box(x, y, 0.6, 0.16)),
}

CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)


def _texture(name: str, x: np.ndarray, y: np.ndarray, scale: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Share of the second colour, 0 to 1. x, y in pixels; scale: pixels per period; phase: (N, 2, 1, 1) periods."""
    u, v = x / scale + phase[:, 0], y / scale + phase[:, 1]
    wave_u, wave_v = np.sin(2 * np.pi * u), np.sin(2 * np.pi * v)
    if name == "striped":
        return np.clip(wave_v * 2 + 0.5, 0, 1)
    if name == "checked":
        return np.clip(wave_u * wave_v * 3 + 0.5, 0, 1)
    if name == "dotted":
        return np.clip((wave_u + wave_v - 0.6) * 2, 0, 1)
    if name == "ringed":
        return np.clip(np.sin(2 * np.pi * (np.hypot(x, y) / scale + phase[:, 0])) * 2 + 0.5, 0, 1)
    return np.zeros_like(x)


def _colours(rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Four colours per image, (count, 3, 1, 1) each in 0 to 1: shape, texture, and the two ends of the background."""
    background = rng.uniform(0, 0.55, (count, 3, 1, 1))
    other = np.clip(background + rng.normal(0, 0.15, (count, 3, 1, 1)), 0, 1)
    shape = rng.uniform(0.65, 1, (count, 3, 1, 1))
    texture = shape * rng.uniform(0.25, 0.5, (count, 1, 1, 1)) * rng.uniform(0.5, 1.2, (count, 3, 1, 1))
    return shape, texture, background, other


def _records(per_class: int, rng: np.random.Generator) -> Records:
    row, column = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] - (IMAGE_SIZE - 1) / 2
    pixels = np.empty((len(CLASSES), per_class, 3 * IMAGE_SIZE * IMAGE_SIZE), np.uint8)
    for index, name in enumerate(CLASSES):
        texture, shape = name.split(" ")
        radius = rng.uniform(8.5, 13, (per_class, 1, 1))
        centre = rng.uniform(-1, 1, (2, per_class, 1, 1)) * (15 - radius)
        tilt = rng.uniform(-0.3, 0.3, (per_class, 1, 1))
        x, y = column - centre[0], row - centre[1]
        x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        inside = _edge(SHAPES[shape](x / radius, y / radius))[:, None]
        scale = rng.uniform(4.5, 6.5, (per_class, 1, 1))
        pattern = _texture(texture, x, y, scale, rng.random((per_class, 2, 1, 1)))[:, None]
        fore, second, back, other = _colours(rng, per_class)
        direction = rng.uniform(0, 2 * np.pi, (per_class, 1, 1))
        ramp = ((column * np.cos(direction) + row * np.sin(direction)) / IMAGE_SIZE + 0.5)[:, None]
        background = back + (other - back) * ramp
        image = background + inside * (fore + (second - fore) * pattern - background)
        light = rng.uniform(0.75, 1.1, (per_class, 1, 1, 1))
        noise = rng.normal(0, 1, image.shape) * rng.uniform(0.01, 0.07, (per_class, 1, 1, 1))
        pixels[index] = np.clip(image * light * 255 + noise * 255, 0, 255).reshape(per_class, -1)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.uint8), per_class)
    order = rng.permutation(len(labels))
    return Records(labels[order] // len(TEXTURES), labels[order], pixels.reshape(len(labels), -1)[order])
