"""A grid of small images with captions, as one piece of HTML: sharp pixels, as many columns as fit."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

STYLE = """<style>
.images { list-style: none; margin: 0; padding: 0 !important; display: grid; gap: 1.1rem 0.8rem;
          grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); }
.images li { margin: 0 !important; padding: 0 !important; min-width: 0; }
.images figure { margin: 0; }
.images img { display: block; width: 100%; height: auto; aspect-ratio: 1; border-radius: 0.4rem;
              image-rendering: pixelated; }
.images figcaption { font-size: 0.875rem; line-height: 1.35; margin-top: 0.35rem; overflow-wrap: anywhere; }
.images .truth { font-weight: 600; }
.images .prediction { display: block; opacity: 0.8; }
</style>"""


class Tile(NamedTuple):
    """image: (H, W, 3) uint8; truth: its label; predictions: what models answered, a line each."""

    image: np.ndarray
    truth: str
    predictions: Sequence[str]


def grid(tiles: Iterable[Tile]) -> str:
    """HTML of the tiles in their order."""
    return f'{STYLE}<ul class="images">{"".join(map(_item, tiles))}</ul>'


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
