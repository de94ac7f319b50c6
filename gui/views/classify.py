"""Classify: a picture, what the model sees, what it takes it for, and why."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gui import bars, champion, comparison, pictures, saliency, samples, words
from gui.comparison import ComparisonError
from gui.pictures import PictureError
from gui.registry import Classified, Model, RegistryError, Square, Version
from gui.saliency import Saliency

TOP_K = 5
TOP_K_BESIDE = 3  # where several models answer side by side
BOX = 256  # CSS pixels: the side of the box each picture is shown in
DENSITY = 2  # pixels sent per CSS pixel, for sharp screens
MAX_FILES = 20  # to choose from
SQUARES: dict[Square, str] = {"crop": "Keep the centre", "pad": "Keep all, with white borders"}
SOURCES = {
    "upload": ":material/upload: Upload",
    "camera": ":material/photo_camera: Camera",
    "sample": ":material/gallery_thumbnail: Test pictures",
}


@dataclass(frozen=True)
class Picked:
    """A picture to classify. picture: (H, W, 3) uint8; truth: the class of a test picture."""

    picture: np.ndarray
    name: str
    truth: str = ""

    @property
    def is_sample(self) -> bool:
        """Whether it is one of the test pictures."""
        return bool(self.truth)


def page() -> None:
    """Draw the page. The upload comes before the model is loaded, so that a picture can be chosen meanwhile."""
    st.title("What is in this picture?")
    source = st.segmented_control(
        "Where the picture comes from",
        list(SOURCES),
        default="upload",
        format_func=SOURCES.__getitem__,
        required=True,
        label_visibility="collapsed",
    )
    file = _uploaded() if source == "upload" else _photographed() if source == "camera" else None
    # Below the upload, which would jump down when they appear.
    choice = st.container()
    introduction = st.empty()
    introduced: Model | None = st.session_state.get("introduced")  # stays there while the registry is asked
    if introduced is None:
        introduction.caption("Asking MLflow for the champion …")
    else:
        _introduce(introduction, introduced)
    try:
        with choice:
            versions = champion.rivals(champion.choose())
            version = champion.choose_among(versions)
        if introduced is None or introduced.version != version:
            introduction.caption(f"Loading {version} …")
        model = st.session_state["introduced"] = champion.load(version)
        _introduce(introduction, model)
        with choice:
            square = choose_square(model) if source != "sample" else None
        picked = _sample(version) if source == "sample" else None
        if file is not None:
            picked = Picked(_decoded(file), file.name)
        if picked is not None:
            _answer(model, picked, square, versions)
    except RegistryError as error:
        introduction.empty()
        st.session_state.pop("introduced", None)
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again", icon=":material/refresh:")
    except PictureError as error:
        st.warning(str(error), icon=":material/broken_image:")
    except ComparisonError as error:
        st.warning(str(error), icon=":material/hide_image:")


def choose_square(model: Model) -> Square:
    """What the model gets of pictures that are not square; at first what its version says."""
    return st.radio(
        "The model looks at a square:",
        list(SQUARES),
        index=list(SQUARES).index(model.square),
        format_func=SQUARES.__getitem__,
        horizontal=True,
    )


def _uploaded() -> UploadedFile | None:
    """The uploaded file to look at: the last one, or the one chosen among several."""
    files = st.file_uploader(
        f"Your pictures: JPEG, PNG, WebP, BMP, GIF or TIFF, up to {pictures.MAX_MEGABYTES} MB each",
        type=list(pictures.EXTENSIONS),
        accept_multiple_files=True,
        max_upload_size=pictures.MAX_MEGABYTES,
        help="They stay in the app's memory: they are neither stored nor logged.",
    )
    if len(files) > MAX_FILES:
        st.caption(f"The last {MAX_FILES} of {len(files)} pictures; the page Batch names them all.")
        files = files[-MAX_FILES:]
    if len(files) < 2:
        return files[0] if files else None
    index = st.pills(
        "Which picture",
        range(len(files)),
        default=len(files) - 1,
        format_func=lambda number: _short(files[number].name),
        required=True,
        key=f"file of {' '.join(file.file_id for file in files)}",  # another upload starts with its last one
    )
    return files[index]


def _decoded(file: UploadedFile) -> np.ndarray:
    """The picture in a file, (H, W, 3) uint8; the session keeps the last one, decoded, for the next interactions."""
    if st.session_state.get("decoded", ("",))[0] != file.file_id:
        st.session_state.pop("decoded", None)
        st.session_state["decoded"] = file.file_id, pictures.load(file.getvalue())
    return st.session_state["decoded"][1]


def _photographed() -> UploadedFile | None:
    return st.camera_input("A photograph", help="It stays in the app's memory: it is neither stored nor logged.")


def _sample(version: Version) -> Picked | None:
    """A click on one of some test pictures, whose classes are known."""
    explorer = comparison.of(version).explorer()
    index = samples.choose(explorer.images, explorer.labels, explorer.class_names)
    if index is None:
        return None
    truth = explorer.class_names[explorer.labels[index]]
    return Picked(np.array(explorer.images[index]), f"Test picture {index}", truth)


def _introduce(place: DeltaGenerator, model: Model) -> None:
    role = next((alias for alias in model.version.aliases if alias != model.name), "")
    who = ", ".join(filter(None, (role, model.name)))
    line = f"**{model.version.name}**, version {model.version.number}"
    line += f" ({who})" if who else ""
    line += f", knows {len(model.class_names)} things"
    if model.test_accuracy is not None:
        line += f" and is right on {bars.percent(model.test_accuracy)} of the test pictures"
    with place.container():
        st.caption(line + ".")
        if model.is_demo:
            st.info(
                "A demo model: it was trained on generated pictures of shapes and textures, and knows nothing of "
                "photographs. `dvc repro` trains on real ones.",
                icon=":material/science:",
            )


def _answer(model: Model, picked: Picked, square: Square | None, versions: dict[str, Version]) -> None:
    seen = model.prepare(picked.picture, square)
    row, found = _classified(model, seen, TOP_K)
    size = seen.shape[0]
    yours, sees = st.columns(2)
    with yours:
        what = "The test picture" if picked.is_sample else "The uploaded picture"
        _show(picked.picture, "JPEG", alt=what, caption=_short(picked.name))
    with sees:
        _show(
            seen,
            "PNG",  # JPEG would smear the pixels
            alt=f"The same picture as a square of {size} by {size} pixels, enlarged",
            caption=f"What the model sees: {size} by {size} pixels",
        )
    st.subheader("The model's answer", anchor=False)
    lines = _lines(picked, found, len(row))
    lines[-1] += f" <small>({words.PROMISE})</small>"
    st.html(bars.chart(found.answers) + words.paragraphs(lines))
    if found.out_of_distribution:
        st.warning(words.out_of_distribution(model, found.answers[0].probability), icon=":material/help:")
    with st.container(horizontal=True, gap="medium"):
        why = st.toggle("Show what the answer rests on", key="why")
        beside = len(versions) > 1 and st.toggle(f"All {len(versions)} models side by side", key="beside")
    if why:
        drawn, told = st.columns(2)
        with drawn:
            lowest = _show_reasons(model, seen, row, found)
        told.html(words.paragraphs([words.reasons(found.answers[0].class_name, float(row.max()), lowest)]))
    if beside:
        for column, (alias, version) in zip(st.columns(len(versions)), versions.items(), strict=True):
            with column, st.container(border=True):
                _answer_beside(alias, version, square, picked, why)


def _classified(model: Model, seen: np.ndarray, top_k: int) -> tuple[np.ndarray, Classified]:
    """The probabilities of a prepared image, (C,), and what they say."""
    probabilities = model.probabilities(seen[np.newaxis])
    return probabilities[0], model.classified(probabilities, top_k)[0]


def _lines(picked: Picked, found: Classified, num_classes: int) -> list[str]:
    """The sentences below the bars; that of the prediction set last."""
    verdict = [words.verdict(picked.truth, found.answers[0].class_name)] if picked.is_sample else []
    return [*verdict, words.prediction_set(found.prediction_set, num_classes)]


def _answer_beside(alias: str, version: Version, square: Square | None, picked: Picked, why: bool) -> None:
    """What one of several versions answers; where it does not load or fails, the others are left alone."""
    st.markdown(f"**{champion.label(alias, version)}**")
    try:
        with st.spinner("Loading …"):
            model = champion.load(version)
        seen = model.prepare(picked.picture, square)
        row, found = _classified(model, seen, TOP_K_BESIDE)
        lines = _lines(picked, found, len(row))
        if found.out_of_distribution:
            lines.append(words.out_of_distribution(model, found.answers[0].probability))
        st.html(bars.chart(found.answers) + words.paragraphs(lines))
        if why:
            _show_reasons(model, seen, row, found)
    except RegistryError as error:
        st.error(str(error), icon=":material/cloud_off:")


def _show_reasons(model: Model, seen: np.ndarray, row: np.ndarray, found: Classified) -> float:
    """Draw the heat map of the likeliest answer; returns the probability that hiding what counts most leaves it."""
    reasons = _occlusion(model, seen, int(row.argmax()))
    drawn = saliency.overlay(pictures.fit(seen, BOX * DENSITY), reasons.heat)
    name = found.answers[0].class_name
    _show(drawn, "JPEG", alt=f"What the answer {name} rests on: in orange over the picture in grey")
    return reasons.lowest


@st.cache_data(
    max_entries=500, show_spinner="Hiding each part in turn …", hash_funcs={Model: lambda model: model.version.identity}
)
def _occlusion(model: Model, seen: np.ndarray, class_index: int) -> Saliency:
    return saliency.occlusion(model.probabilities, seen, class_index)


def _show(picture: np.ndarray, sent_as: Literal["JPEG", "PNG"], alt: str, caption: str | None = None) -> None:
    width = max(1, round(BOX * picture.shape[1] / max(picture.shape)))
    st.image(pictures.fit(picture, BOX * DENSITY), alt=alt, width=width, output_format=sent_as)
    if caption is not None:
        st.caption(caption)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:14]}…{name[-13:]}"
