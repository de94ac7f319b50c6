"""A gallery of test images to choose from: buttons, so that the keyboard reaches them as well."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from gui.grid import data_uri

SHOWN = 12  # per page


def choose(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> int | None:
    """Draw the gallery; returns the index of the image that was chosen last, None before any was.

    images: (N, H, W, 3) uint8; labels: (N,) int64.
    """

    def label(index: int) -> str:
        name = "".join(letter if letter.isalnum() else " " for letter in class_names[labels[index]])
        return f"![{name}]({data_uri(images[index])})"

    place = st.container(key="samples")
    page = st.pagination(-(-len(images) // SHOWN), key="samples-page")
    shown = on_page(len(images), page)
    chosen = place.pills("Test images", shown, format_func=label, key=f"samples-{page}", label_visibility="collapsed")
    if chosen is not None:
        st.session_state["sample"] = chosen  # stays while other pages are looked at
    index = st.session_state.get("sample", len(images))
    return index if index < len(images) else None


def on_page(number: int, page: int) -> list[int]:
    """Which of `number` images are on a page: shuffled, or the first page would show one class; always the same."""
    return np.random.default_rng(0).permutation(number)[(page - 1) * SHOWN : page * SHOWN].tolist()
