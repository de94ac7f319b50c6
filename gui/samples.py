"""A gallery of test pictures to click on: buttons that are pictures, so that the keyboard reaches them as well."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import streamlit as st
from PIL import Image

SHOWN = 12
SIDE = 72  # CSS pixels
# !important: Streamlit keeps pictures in labels at the size of an icon.
STYLE = f"""<style>
.st-key-samples button {{ padding: 3px; min-height: 0; }}
.st-key-samples button img {{ width: {SIDE}px !important; height: {SIDE}px !important; max-width: none !important;
                             max-height: none !important; margin: 0; border-radius: 4px; vertical-align: top;
                             object-fit: fill !important; image-rendering: pixelated; }}
</style>"""


def choose(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> int | None:
    """Draw the gallery; returns the index of the picture that was clicked last, None before any was.

    images: (N, H, W, 3) uint8; labels: (N,) int64.
    """
    st.html(STYLE)
    draw = st.session_state.setdefault("samples_draw", 0)
    with st.container(key="samples", horizontal=True, gap="small"):
        for index in drawn(len(images), draw):
            name = class_names[labels[index]]
            picture = f"![{_alt(name)}](data:image/png;base64,{_png(images[index])})"
            if st.button(picture, key=f"sample {index}"):
                st.session_state["sample"] = index
    if st.button("Other pictures", icon=":material/casino:"):
        st.session_state["samples_draw"] = draw + 1
        st.rerun()
    clicked = st.session_state.get("sample", len(images))
    return clicked if clicked < len(images) else None


def drawn(number: int, draw: int) -> list[int]:
    """Which of `number` pictures the gallery shows at its `draw`-th draw, always the same ones."""
    rng = np.random.default_rng(draw)
    return [int(index) for index in rng.choice(number, min(SHOWN, number), replace=False)]


def _alt(name: str) -> str:
    return "".join(letter if letter.isalnum() else " " for letter in name)


def _png(picture: np.ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode("ascii")
