"""Files that people upload, decoded to arrays: any file gives an image or an ImageError of one line.

Nothing here knows of Streamlit or MLflow, nothing is written to disk.
"""

import threading
from contextlib import nullcontext, suppress
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.common.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # no other decoder ever sees an uploaded file
EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff")
MAX_MEGABYTES = 32
MAX_PIXELS = 64_000_000  # telephones take up to 50 million
MAX_DEEP_PIXELS = 16_000_000  # of 32 bits a sample, floats or integers, each of which takes 20 bytes for a moment
LARGE_PIXELS = 8_000_000  # of larger images one is decoded at a time, so that several together do not fill the memory
WORKING_SIDE = 1024  # pixels: larger images are reduced to a longer side of one to two times this
TOO_LARGE = f"This file has more than the {MAX_MEGABYTES} MB taken here: save it smaller."

_large = threading.Semaphore()


class ImageError(UserError):
    """A file that is not decoded. The message is one line: what is wrong with it and what to do."""


def load(content: bytes) -> np.ndarray:
    """Decode an image file (see FORMATS; of an animation the first frame).

    It comes upright (EXIF orientation), transparent parts white, 16-bit, greyscale, palette and CMYK as RGB, and large
    ones reduced by averaging areas. Returns (H, W, 3) uint8 with H and W from 1 to 2 * WORKING_SIDE - 1. ImageError
    for anything else than a whole image within MAX_MEGABYTES and MAX_PIXELS (MAX_DEEP_PIXELS).
    """
    if not content:
        raise ImageError("This file is empty: choose another one.")
    if len(content) > MAX_MEGABYTES * 2**20:
        raise ImageError(TOO_LARGE)
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            is_deep = image.mode in ("I", "F")
            if width * height > (MAX_DEEP_PIXELS if is_deep else MAX_PIXELS):
                raise _too_many_pixels(f"is {width:,} by {height:,} pixels", is_deep)
            image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # a JPEG can be decoded at a fraction of its size
            if "progressive" not in image.info:  # of a progressive one all is in memory, whatever is asked for
                width, height = image.size
            with _large if width * height > LARGE_PIXELS else nullcontext():
                image.load()
                _turn_upright(image)
                return np.array(_rgb(image))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels("claims to be enormous") from None
    except UnidentifiedImageError:
        is_markup = content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
        raise ImageError(
            "This file is a web page or an SVG drawing, whatever its name says: save it as PNG or JPEG."
            if is_markup
            else "This file is no image that can be read here: choose a JPEG, PNG, WebP, BMP, GIF or TIFF file."
        ) from None
    except Exception as error:  # decoders meet hostile bytes here, and they raise nearly every kind of exception
        raise ImageError(
            f"This image is damaged or unusual ({summary(error)}): open it elsewhere and save it as PNG or JPEG."
        ) from error


def summary(error: Exception) -> str:
    """What a library says of a failure, short and in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Scale an image to be shown in a box of `side` pixels: down by averaging, up so that its pixels stay visible.

    image: (H, W, 3) uint8. Returns (h, w, 3) uint8 with h and w from 1 to `side`, the longer one close to it.
    """
    height, width = image.shape[:2]
    times = side // max(height, width)
    if times >= 1:
        return image.repeat(times, axis=0).repeat(times, axis=1)
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _turn_upright(image: Image.Image) -> None:
    # A camera's broken EXIF block is no reason to refuse its image.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:  # Pillow would copy it
        image = image.convert(mode)
    factor = max(image.size) // WORKING_SIDE
    if factor > 1:
        image = image.reduce(factor)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit samples over their full range; 32-bit integers and floats, which have none, from lowest to highest."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))


def _too_many_pixels(what: str, is_deep: bool = False) -> ImageError:
    limit = f"{(MAX_DEEP_PIXELS if is_deep else MAX_PIXELS) // 1_000_000} million pixels"
    kind, way = (" of 32 bits", " or with 8 bits") if is_deep else ("", "")
    return ImageError(f"This image {what}{kind}, more than the {limit} taken here: save it smaller{way}.")
