"""Classify: upload a picture, see what the model sees and what it takes it for."""

from typing import Literal

import numpy as np
import streamlit as st

from gui import bars, champion, pictures
from gui.pictures import PictureError, Squaring
from gui.registry import Model, RegistryError

TOP_K = 5
BOX = 256  # CSS pixels: the side of the box each picture is shown in
DENSITY = 2  # pixels sent per CSS pixel, for sharp screens
SQUARINGS: dict[Squaring, str] = {"crop": "Keep the centre", "pad": "Keep all, with white borders"}


def page() -> None:
    """Draw the page. The upload comes before the model is loaded, so that a picture can be chosen meanwhile."""
    st.title("What is in this picture?")
    choice = st.container()
    introduction = st.empty()
    introduction.caption("Asking MLflow for the champion …")
    upload = st.file_uploader(
        f"Your picture: JPEG, PNG, WebP, BMP, GIF or TIFF, up to {pictures.MAX_MEGABYTES} MB",
        type=list(pictures.EXTENSIONS),
        max_upload_size=pictures.MAX_MEGABYTES,
        help="It stays in the app's memory: it is neither stored nor logged.",
    )
    squaring = st.radio(
        "The model looks at a square:", list(SQUARINGS), format_func=SQUARINGS.__getitem__, horizontal=True
    )
    try:
        with choice:
            version = champion.choose()
        introduction.caption(f"Loading {version} …")
        model = champion.load(version)
        with introduction.container():
            _introduce(model)
        if upload is not None:
            _answer(model, pictures.load(upload.getvalue()), squaring)
    except RegistryError as error:
        introduction.empty()
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again", icon=":material/refresh:")
    except PictureError as error:
        st.warning(str(error), icon=":material/broken_image:")


def _introduce(model: Model) -> None:
    line = f"**{model.version.name}**, version {model.version.number} (champion"
    line += f", {model.classifier})" if model.classifier else ")"
    line += f", knows {len(model.class_names)} things"
    if model.test_accuracy is not None:
        line += f" and is right on {bars.percent(model.test_accuracy)} of the test pictures"
    st.caption(line + ".")
    if model.is_demo:
        st.info(
            "A demo model: it was trained on generated pictures of shapes and textures, and knows nothing of "
            "photographs. `dvc repro` trains on real ones.",
            icon=":material/science:",
        )


def _answer(model: Model, picture: np.ndarray, squaring: Squaring) -> None:
    square = pictures.square(picture, squaring)
    seen = model.sees(square)
    answers = model.answers(model.probabilities(square[np.newaxis])[0], TOP_K)
    size = seen.shape[0]
    yours, sees = st.columns(2)
    with yours:
        _show(picture, "JPEG", alt="The uploaded picture", caption="Your picture")
    with sees:
        _show(
            seen,
            "PNG",  # JPEG would smear the pixels
            alt=f"The same picture as a square of {size} by {size} pixels, enlarged",
            caption=f"What the model sees: {size} by {size} pixels",
        )
    st.subheader("The model's answer", anchor=False)
    st.html(bars.chart(answers))


def _show(picture: np.ndarray, sent_as: Literal["JPEG", "PNG"], alt: str, caption: str) -> None:
    shown = pictures.fit(picture, BOX * DENSITY)
    st.image(shown, alt=alt, width=max(1, shown.shape[1] // DENSITY), output_format=sent_as)
    st.caption(caption)
