"""Mutated image files through the loader: each gives an image or a refusal of one line, soon, in little memory.

python -m tests.gui.fuzz [COUNT] [SEED]    2,000 files by default, in half a minute
"""

import random
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from gui import images
from gui.images import ImageError
from tests.gui import memory
from tests.gui.conftest import RED, as_file

WIDTH, HEIGHT = 211, 157  # found again in any header
MIDDLE = (WIDTH // 2, HEIGHT // 2)
SIZES = (0, 1, 2, 255, 10_000, 16_383, 30_000, 65_535, 100_000, 2**31 - 1, 2**32 - 1)


def originals() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Whole files of many kinds, by name, all of WIDTH by HEIGHT pixels, each with the colour in its middle."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.paste(RED, (60, 40, 150, 120))
    clear = image.convert("RGBA")
    clear.paste((10, 10, 10, 0), (60, 40, 150, 120))
    deep = Image.fromarray(np.full((HEIGHT, WIDTH), 25_700, np.uint16))
    frames = {"save_all": True, "append_images": [Image.fromarray(noise)] * 2}
    animated = {f"animated {kind}": (image, kind, frames) for kind in ("GIF", "WEBP", "PNG", "TIFF")}
    # Name: image, format, options of Pillow for writing it.
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {kind: (image, kind, {}) for kind in images.FORMATS}
    kinds |= animated | {
        "CMYK JPEG": (image.convert("CMYK"), "JPEG", {}),
        "CMYK TIFF": (image.convert("CMYK"), "TIFF", {}),
        "YCbCr JPEG": (image.convert("YCbCr"), "JPEG", {}),
        "progressive JPEG": (image, "JPEG", {"progressive": True}),
        "grey JPEG": (image.convert("L"), "JPEG", {}),
        "broken EXIF": (image, "JPEG", {"exif": b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40}),
        "LZW TIFF": (image, "TIFF", {"compression": "tiff_lzw"}),
        "bilevel TIFF": (image.convert("1", dither=Image.Dither.NONE), "TIFF", {"compression": "group4"}),
        "palette PNG": (image.quantize(16), "PNG", {}),
    }
    found = {
        name: (as_file(of, kind, **how), of.convert("RGB").getpixel(MIDDLE)) for name, (of, kind, how) in kinds.items()
    }
    for mode, kind in (("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")):
        found[f"transparent {mode} {kind}"] = as_file(clear.convert(mode), kind, lossless=True), (255, 255, 255)
    found["transparent P PNG"] = as_file(clear.quantize()), (255, 255, 255)
    return found | {f"16-bit {kind}": (as_file(deep, kind), (100, 100, 100)) for kind in ("PNG", "TIFF")}


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """Some bits are turned round, half of the time near the start."""
    changed = bytearray(content)
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 100)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return content[: rng.randrange(len(content))]


def claims_another_size(content: bytes, rng: random.Random) -> bytes:
    """Width, height or both are others in the header, often enormous ones."""
    head, rest = content[:600], content[600:]
    for side in rng.choice(((WIDTH,), (HEIGHT,), (WIDTH, HEIGHT))):
        size = rng.choice(SIZES)
        for layout, most in ((">I", 2**32 - 1), ("<I", 2**32 - 1), (">H", 65_535), ("<H", 65_535)):
            head = head.replace(struct.pack(layout, side), struct.pack(layout, min(size, most)), 1)
    if head.startswith(b"\x89PNG"):  # whose header is not believed without its checksum
        head = head[:29] + struct.pack(">I", zlib.crc32(head[12:29])) + head[33:]
    return head + rest


MUTATIONS = (flip_bits, cut, claims_another_size)


def run(count: int, seed: int = 0) -> tuple[Counter[str], float, float]:
    """Load `count` mutated files, always the same ones; AssertionError where one gives neither an image nor a line.

    Returns how often each outcome occurred (`image`, or what was refused), the most CPU seconds of one file, and the MB
    by which the process grew at most.
    """
    rng = random.Random(seed)
    whole = [content for content, _ in originals().values()]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with memory.growth() as growth:
        for number in range(count):
            content = whole[number % len(whole)]
            for _ in range(rng.choice((1, 1, 2))):
                content = rng.choice(MUTATIONS)(content, rng) or content
            started = time.process_time()
            try:
                image = images.load(content)
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, image.shape
                assert 0 < min(image.shape[:2]) <= max(image.shape[:2]) < 2 * images.WORKING_SIDE, image.shape
                outcomes["image"] += 1
            except ImageError as refusal:
                assert "\n" not in str(refusal) and len(str(refusal)) < 300, refusal
                outcomes[str(refusal).split("(")[0].split(",")[0]] += 1
            slowest = max(slowest, time.process_time() - started)
    return outcomes, slowest, growth.peak


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    counted, seconds, megabytes = run(*map(int, sys.argv[1:] or ["2000"]))
    for outcome, times in counted.most_common():
        print(f"{times:5}  {outcome}")
    print(f"slowest {seconds:.2f} s of CPU; memory grew by {megabytes:.0f} MB at most")
