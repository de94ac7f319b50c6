"""Mutated picture files through the loader: each gives a picture or a refusal of one line, soon, in little memory.

python -m tests.gui.fuzz [COUNT] [--seed N]    2,000 files by default, in half a minute
"""

import argparse
import random
import struct
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from gui import pictures
from gui.pictures import PictureError
from tests.gui import memory
from tests.gui.conftest import as_file

WIDTH, HEIGHT = 211, 157  # found again in any header
SIZES = (0, 1, 2, 255, 10_000, 16_383, 30_000, 65_535, 100_000, 2**31 - 1, 2**32 - 1)


@dataclass
class Report:
    """What became of the files. slowest: CPU seconds of one file; peak: MB by which the process grew at most."""

    pictures: int = 0
    refusals: int = 0
    slowest: float = 0
    peak: float = 0
    reasons: Counter[str] = field(default_factory=Counter)


def originals() -> dict[str, bytes]:
    """Whole files of every format and of many kinds, by name."""
    rng = np.random.default_rng(0)
    texture = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    others = [texture.rotate(90 * turn) for turn in range(1, 4)]
    found = {kind: as_file(texture, kind) for kind in pictures.FORMATS}
    found |= {f"animated {kind}": as_file(texture, kind, save_all=True, append_images=others) for kind in ANIMATED}
    deep = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    found |= {
        "CMYK JPEG": as_file(texture.convert("CMYK"), "JPEG"),
        "CMYK TIFF": as_file(texture.convert("CMYK"), "TIFF"),
        "progressive JPEG": as_file(texture, "JPEG", progressive=True),
        "grey JPEG": as_file(texture.convert("L"), "JPEG"),
        "16-bit PNG": as_file(Image.fromarray(deep.astype(np.uint16)), "PNG"),
        "float TIFF": as_file(Image.fromarray(deep.astype(np.float32)), "TIFF", compression="tiff_deflate"),
        "LZW TIFF": as_file(texture, "TIFF", compression="tiff_lzw"),
        "bilevel TIFF": as_file(texture.convert("1"), "TIFF", compression="group4"),
        "palette PNG": as_file(texture.quantize(16), "PNG", transparency=3),
        "transparent WEBP": as_file(texture.convert("RGBA"), "WEBP", lossless=True),
        "1x1": as_file(Image.new("RGB", (1, 1)), "PNG"),
        "1x10000": as_file(Image.new("RGB", (1, 10_000)), "PNG"),
        "10000x1": as_file(Image.new("RGB", (10_000, 1)), "JPEG"),
    }
    return found


ANIMATED = ("GIF", "WEBP", "PNG", "TIFF")


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


def tear(content: bytes, rng: random.Random) -> bytes:
    """A piece is missing, or stands twice."""
    start, stop = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:start] + content[stop:] if rng.random() < 0.5 else content[:stop] + content[start:]


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


def wears_another_head(content: bytes, rng: random.Random) -> bytes:
    """It starts like something else, as a file with the wrong extension does."""
    heads = (
        b"<svg>",
        b"<!DOCTYPE html>",
        b"PK\x03\x04",
        b"%PDF-1.7",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"\xff\xd8\xff",
        b"RIFF",
    )
    head = rng.choice(heads)
    return head + content[len(head) * rng.randrange(2) :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    cut,
    tear,
    claims_another_size,
    wears_another_head,
)


def run(count: int, seed: int = 0) -> Report:
    """Load `count` mutated files, always the same ones; AssertionError where one gives neither a picture nor a line."""
    rng = random.Random(seed)
    whole = list(originals().values())
    report = Report()
    with memory.growth() as growth:
        for number in range(count):
            content = whole[number % len(whole)]
            for _ in range(rng.choice((1, 1, 2))):
                content = rng.choice(MUTATIONS)(content, rng) or content
            started = time.process_time()
            try:
                picture = pictures.load(content)
                assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, picture.shape
                assert 0 < min(picture.shape[:2]) <= max(picture.shape[:2]) < 2 * pictures.WORKING_SIDE, picture.shape
                report.pictures += 1
            except PictureError as refusal:
                assert "\n" not in str(refusal), refusal
                assert len(str(refusal)) < 300, refusal
                report.refusals += 1
                report.reasons[str(refusal).split("(")[0].split(",")[0]] += 1
            report.slowest = max(report.slowest, time.process_time() - started)
    report.peak = growth.peak
    return report


def main() -> None:
    """Run and print what became of the files."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    report = run(arguments.count, arguments.seed)
    print(f"{report.pictures} pictures, {report.refusals} refusals; slowest {report.slowest:.2f} s of CPU; ", end="")
    print(f"memory grew by {report.peak:.0f} MB at most")
    for reason, times in report.reasons.most_common():
        print(f"{times:5}  {reason}")


if __name__ == "__main__":
    main()
