"""A grid of small pictures with captions, as one piece of HTML: crisp, phone-wide, a few kilobytes a picture."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

STYLE = """<style>
.pictures { list-style: none; margin: 0; padding: 0 !important; display: grid; gap: 1.1rem 0.8rem;
            grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); }
.pictures li { margin: 0 !important; padding: 0 !important; min-width: 0; }
.pictures figure { margin: 0; }
.pictures img { display: block; width: 100%; height: auto; aspect-ratio: 1; border-radius: 0.4rem;
                image-rendering: pixelated; }
.pictures figcaption { font-size: 0.875rem; line-height: 1.35; margin-top: 0.35rem; overflow-wrap: anywhere; }
.pictures .truth { font-weight: 600; }
.pictures .said { display: block; opacity: 0.8; }
</style>"""


@dataclass(frozen=True)
class Tile:
    """A picture, (H, W, 3) uint8, what it shows, and what was said of it, a line each."""

    picture: np.ndarray
    truth: str
    said: Sequence[str]


def grid(tiles: Iterable[Tile]) -> str:
    """HTML of the pictures in their order, each with its alternative text and caption."""
    return f'{STYLE}<ul class="pictures">{"".join(map(_item, tiles))}</ul>'


def _item(tile: Tile) -> str:
    height, width = tile.picture.shape[:2]
    said = "".join(f'<span class="said">{escape(line)}</span>' for line in tile.said)
    return (
        f'<li><figure><img src="data:image/png;base64,{_png(tile.picture)}" width="{width}" height="{height}" '
        f'alt="Test picture: {escape(tile.truth)}">'
        f'<figcaption><span class="truth">{escape(tile.truth)}</span>{said}</figcaption></figure></li>'
    )


def _png(picture: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()
