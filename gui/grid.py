"""A grid of small images with captions, as one piece of HTML: sharp pixels, as many columns as fit."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image


class Tile(NamedTuple):
    """image: (H, W, 3) uint8; truth: its label; predictions: what models answered, a line each."""

    image: np.ndarray
    truth: str
    predictions: Sequence[str]


def grid(tiles: Iterable[Tile]) -> str:
    """HTML of the tiles in their order."""
    return f'<ul class="images">{"".join(map(_item, tiles))}</ul>'


def _item(tile: Tile) -> str:
    predictions = "".join(f'<span class="prediction">{escape(line)}</span>' for line in tile.predictions)
    return (
        f'<li><figure><img src="{data_uri(tile.image)}" alt="Test image: {escape(tile.truth)}">'
        f'<figcaption><span class="truth">{escape(tile.truth)}</span>{predictions}</figcaption></figure></li>'
    )


def data_uri(image: np.ndarray) -> str:
    """An image, (H, W, 3) uint8, as a PNG within a URI."""
    file = BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
