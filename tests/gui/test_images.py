"""Image files of every kind, decoded or refused."""

import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageChops

from gui import images
from gui.images import ImageError
from tests.gui import fuzz, memory
from tests.gui.conftest import BLUE, RED, as_file, image_file

LEFT_RED_RIGHT_BLUE = Image.new("RGB", (40, 20), RED)
LEFT_RED_RIGHT_BLUE.paste(BLUE, (20, 0, 40, 20))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG file of a small image with another size in its header."""
    content = image_file(RED)
    header = content[12:16] + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


EVERY_KIND = fuzz.originals()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_file_is_decoded(kind: str) -> None:
    content, colour = EVERY_KIND[kind]
    image = images.load(content)
    assert (image.shape, image.dtype) == ((fuzz.HEIGHT, fuzz.WIDTH, 3), np.uint8)
    assert np.abs(image[fuzz.MIDDLE[::-1]].astype(int) - colour).max() < 4


def test_an_image_is_turned_upright_by_its_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the image must be turned clockwise
    image = images.load(as_file(LEFT_RED_RIGHT_BLUE, "JPEG", exif=exif, quality=95))
    assert image.shape == (40, 20, 3)
    assert image[5, 10, 0] > 200  # what was left is up
    assert image[35, 10, 2] > 200


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_range_are_stretched(dtype: type) -> None:
    values = np.array([[-7, 3], [3, 13]], dtype)
    assert images.load(as_file(Image.fromarray(values), "TIFF"))[..., 1].tolist() == [[0, 127], [127, 255]]
    no_numbers = np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32)
    assert images.load(as_file(Image.fromarray(no_numbers), "TIFF")).shape == (2, 2, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_any_shape_fits_its_box(size: tuple[int, int]) -> None:
    image = images.load(image_file(RED, size))
    assert max(image.shape) < 2 * images.WORKING_SIDE
    shown = images.fit(image, 100)
    assert 1 <= min(shown.shape[:2]) <= max(shown.shape[:2]) <= 100
    assert max(shown.shape[:2]) > 50


def test_enlarged_pixels_stay_sharp() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(images.fit(image, 7), np.kron(image, np.ones((3, 3, 1))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photograph_is_reduced_without_losing_its_look(kind: str) -> None:
    image = LEFT_RED_RIGHT_BLUE.resize((5000, 2500), Image.Resampling.NEAREST)
    image = images.load(as_file(image, kind))
    assert images.WORKING_SIDE <= image.shape[1] < 2 * images.WORKING_SIDE
    assert image.shape[1] == pytest.approx(2 * image.shape[0], abs=2)
    small = Image.fromarray(image).resize((40, 20), Image.Resampling.BOX)
    assert np.asarray(ImageChops.difference(small, LEFT_RED_RIGHT_BLUE))[:, :19].max() < 6


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"this is no image", "no image that can be read"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "web page or an SVG"),
    "html": (b"\xef\xbb\xbf \n<!DOCTYPE html><html></html>", "web page or an SVG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image that can be read"),
    "truncated": (image_file(RED, (300, 200), "JPEG")[:-300], "damaged"),
    "only a header": (png_claiming(2000, 2000), "damaged"),
    "12,000 by 12,000": (png_claiming(12_000, 12_000), "pixels taken here"),
    "50,000 by 50,000": (png_claiming(50_000, 50_000), "pixels taken here"),
    "too many bytes": (b"\0" * (images.MAX_MEGABYTES * 2**20 + 1), "more than the 32 MB taken here"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_image_within_bounds_is_refused_in_one_line(case: str) -> None:
    content, expected = REFUSED[case]
    started = time.process_time()  # a busy machine is not the loader's fault
    with memory.growth() as growth, pytest.raises(ImageError, match=expected) as refusal:
        images.load(content)
    assert "\n" not in str(refusal.value)
    assert time.process_time() - started < 2
    assert not growth.peak > 50


@pytest.mark.slow
# One has 256 MB; Pillow averages premultiplied.
@pytest.mark.parametrize(("mode", "most"), [("RGB", 350), ("RGBA", 600)])
def test_three_of_the_largest_images_at_once_take_the_memory_of_one_and_give_it_back(mode: str, most: int) -> None:
    content = as_file(Image.new(mode, (8000, 8000), RED), "PNG")
    assert images.MAX_PIXELS == 8000 * 8000
    with memory.growth() as growth, ThreadPoolExecutor(3) as threads:
        threads.map(images.load, [content] * 3)
    assert not growth.peak > most
    assert not growth.kept > 50


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_of_32_bits_a_sample_have_a_lower_limit_and_stay_within_it(dtype: type) -> None:
    flat = Image.fromarray(np.zeros((4001, 4000), dtype))
    with pytest.raises(ImageError, match="4,000 by 4,001 pixels of 32 bits, more than the 16 million"):
        images.load(as_file(flat, "TIFF", compression="tiff_deflate"))
    assert images.load(as_file(flat.crop((0, 0, 3000, 3000)), "TIFF", compression="tiff_deflate")).shape[2] == 3


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_an_image_or_a_refusal() -> None:
    outcomes, slowest, peak = fuzz.run(300)
    assert 30 < outcomes["image"] < 270
    assert slowest < 2
    assert not peak > 300
