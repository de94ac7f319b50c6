import random
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops

from gui import pictures
from gui.pictures import PictureError
from tests.gui import fuzz, memory
from tests.gui.conftest import BLUE, RED, as_file, picture_file

LEFT_RED_RIGHT_BLUE = Image.new("RGB", (40, 20), RED)
LEFT_RED_RIGHT_BLUE.paste(BLUE, (20, 0, 40, 20))


def png_claiming(width: int, height: int) -> bytes:
    """The start of a PNG file with any size in its header and hardly any pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_every_promised_format_is_read(kind: str) -> None:
    picture = pictures.load(picture_file(RED, kind=kind))
    assert picture.shape == (40, 60, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.mean(axis=(0, 1)) - RED).max() < 4


def test_a_picture_is_turned_upright_by_its_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    picture = pictures.load(as_file(LEFT_RED_RIGHT_BLUE, "JPEG", exif=exif, quality=95))
    assert picture.shape == (40, 20, 3)
    assert picture[5, 10, 0] > 200  # what was left is up
    assert picture[35, 10, 2] > 200


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_refuse_the_picture() -> None:
    content = as_file(LEFT_RED_RIGHT_BLUE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    assert pictures.load(content).shape == (20, 40, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 4), (200, 200, 200, 255))
    image.paste((10, 10, 10, 0), (0, 0, 4, 4))
    picture = pictures.load(as_file(image.quantize() if mode == "P" else image.convert(mode)))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert np.abs(picture[0, 7].astype(int) - 200).max() <= 2


def test_sixteen_bit_greyscale_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        picture = pictures.load(as_file(Image.fromarray(ramp), kind))
        assert np.abs(picture[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_range_are_stretched(dtype: type) -> None:
    values = np.array([[-7, 3], [3, 13]], dtype)
    picture = pictures.load(as_file(Image.fromarray(values), "TIFF"))
    assert picture[..., 1].tolist() == [[0, 127], [127, 255]]


def test_samples_that_are_no_numbers_do_no_harm() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32)
    assert pictures.load(as_file(Image.fromarray(values), "TIFF")).shape == (2, 2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    content = as_file(Image.new("RGB", (9, 7), "white").convert(mode), "TIFF" if mode == "1" else "JPEG")
    assert pictures.load(content).min() > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    content = as_file(
        Image.new("RGB", (9, 7), RED), kind, save_all=True, append_images=[Image.new("RGB", (9, 7), BLUE)]
    )
    assert np.abs(pictures.load(content)[3, 3].astype(int) - RED).max() < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_any_shape_fits_its_box(size: tuple[int, int]) -> None:
    picture = pictures.load(picture_file(RED, size))
    assert max(picture.shape) < 2 * pictures.WORKING_SIDE
    shown = pictures.fit(picture, 100)
    assert 1 <= min(shown.shape[:2]) <= max(shown.shape[:2]) <= 100
    assert max(shown.shape[:2]) > 50


def test_enlarged_pixels_stay_sharp() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (pictures.fit(picture, 7)[::3, ::3] == picture).all()
    assert pictures.fit(picture, 7).shape == (6, 6, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photograph_is_reduced_without_losing_its_look(kind: str) -> None:
    image = LEFT_RED_RIGHT_BLUE.resize((5000, 2500), Image.Resampling.NEAREST)
    picture = pictures.load(as_file(image, kind))
    assert pictures.WORKING_SIDE <= picture.shape[1] < 2 * pictures.WORKING_SIDE
    assert picture.shape[1] == pytest.approx(2 * picture.shape[0], abs=2)
    small = Image.fromarray(picture).resize((40, 20), Image.Resampling.BOX)
    assert np.asarray(ImageChops.difference(small, LEFT_RED_RIGHT_BLUE))[:, :19].max() < 6


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"this is no picture", "no picture that can be read"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "web page or an SVG"),
    "html": (b"\xef\xbb\xbf \n<!DOCTYPE html><html></html>", "web page or an SVG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no picture that can be read"),
    "truncated": (picture_file(RED, (300, 200), "JPEG")[:-300], "damaged"),
    "only a header": (png_claiming(2000, 2000), "damaged"),
    "12,000 by 12,000": (png_claiming(12_000, 12_000), "pixels taken here"),
    "50,000 by 50,000": (png_claiming(50_000, 50_000), "pixels taken here"),
    "too many bytes": (b"\0" * (pictures.MAX_MEGABYTES * 2**20 + 1), "MB taken here"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_picture_within_bounds_is_refused_in_one_line(case: str) -> None:
    content, expected = REFUSED[case]
    started = time.process_time()  # a busy machine is not the loader's fault
    with memory.growth() as growth, pytest.raises(PictureError, match=expected) as refusal:
        pictures.load(content)
    assert "\n" not in str(refusal.value)
    assert time.process_time() - started < 2
    assert not growth.peak > 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "most"), [("RGB", 350), ("RGBA", 600)]
)  # one has 256 MB; Pillow averages premultiplied
def test_three_of_the_largest_pictures_at_once_take_the_memory_of_one_and_give_it_back(mode: str, most: int) -> None:
    content = as_file(Image.new(mode, (8000, 8000), RED), "PNG")
    assert pictures.MAX_PIXELS == 8000 * 8000
    threads = [threading.Thread(target=pictures.load, args=(content,)) for _ in range(3)]
    with memory.growth() as growth:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not growth.peak > most
    assert not growth.kept > 50


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pictures_of_32_bits_a_sample_have_a_lower_limit_and_stay_within_it(dtype: type) -> None:
    flat = Image.fromarray(np.zeros((4001, 4000), dtype))
    with pytest.raises(PictureError, match="4,000 by 4,001 pixels of 32 bits, more than the 16 million"):
        pictures.load(as_file(flat, "TIFF", compression="tiff_deflate"))
    assert pictures.load(as_file(flat.crop((0, 0, 3000, 3000)), "TIFF", compression="tiff_deflate")).shape[2] == 3


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_a_picture_or_a_refusal() -> None:
    report = fuzz.run(300)
    assert report.pictures + report.refusals == 300
    assert min(report.pictures, report.refusals) > 30
    assert report.slowest < 2
    assert not report.peak > 300


def test_the_mutations_reach_what_they_are_named_for() -> None:
    rng = random.Random(1)
    png = fuzz.originals()["PNG"]
    claims = fuzz.claims_another_size(png, rng)
    assert struct.unpack(">II", png[16:24]) == (fuzz.WIDTH, fuzz.HEIGHT) != struct.unpack(">II", claims[16:24])
    assert zlib.crc32(claims[12:29]) == int.from_bytes(claims[29:33])  # so that the header is believed
    assert len(fuzz.cut(png, rng)) < len(png)
    flipped = fuzz.flip_bits(png, rng)
    assert len(flipped) == len(png)
    assert flipped != png
