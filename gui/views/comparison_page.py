"""What the pages about the champion and its comparison share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import streamlit as st

from gui import champion, comparison
from gui.comparison import ComparisonError, LoggedComparison
from gui.grid import Tile, grid
from gui.registry import RegistryError, Version

IMAGES_A_PAGE = 24


@contextmanager
def failures_as_sentences(key: str = "") -> Iterator[None]:
    """Show a RegistryError or ComparisonError as its sentence, with a button to try again; key: of the button."""
    try:
        yield
    except (RegistryError, ComparisonError) as error:
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again", icon=":material/refresh:", key=f"try-again-{key}")


def champion_and_comparison() -> tuple[Version, LoggedComparison]:
    """The champion of the moment and the comparison it was registered with."""
    version = champion.choose()
    return version, comparison.of(version)


def shown_as(version: Version) -> str:
    """A version in a caption: version 3 of cifar100-classifier, vit_transfer."""
    model = version.tags.get("model")
    return f"{version}, {model}" if model else str(version)


def choose(label: str, options: Mapping[str, str], key: str) -> str:
    """One of a few options, by key to what is shown; the first one is the default, and the choice stays."""
    chosen = st.segmented_control(
        label,
        list(options),
        default=next(iter(options)),
        required=True,
        format_func=options.__getitem__,
        key=key,
        persist_state="session",
    )
    return chosen or next(iter(options))


def gallery(rows: Sequence[int] | np.ndarray, tile: Callable[[int], Tile], key: str) -> None:
    """A page of images, and the way to the others. key: of the choice; another one starts at the first page."""
    pages = max(1, -(-len(rows) // IMAGES_A_PAGE))
    place = st.empty()
    page = st.pagination(pages, key=f"page-{key}") if pages > 1 else 1
    first = (page - 1) * IMAGES_A_PAGE
    place.html(grid(tile(int(row)) for row in rows[first : first + IMAGES_A_PAGE]))
