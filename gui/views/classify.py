"""Classify: an image, what the model sees of it, the prediction, and what that rests on."""

from typing import Literal, NamedTuple

import numpy as np
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gui import bars, champion, comparison, images, registry, saliency, samples, words
from gui.images import ImageError
from gui.registry import Model, RegistryError, Square, Version
from gui.saliency import Saliency
from gui.views.comparison_page import failures_as_sentences

TOP_K = 5
TOP_K_BESIDE = 3  # where several models answer side by side
BOX = 256  # CSS pixels: the side of the box each image is shown in
DENSITY = 2  # pixels sent per CSS pixel, for sharp screens
PRIVATE = "Uploads stay in the app's memory: they are neither stored nor logged."
SQUARES: dict[Square, str] = {"crop": "Crop to the centre", "pad": "Pad with white"}
SOURCES = {
    "upload": ":material/upload: Upload",
    "camera": ":material/photo_camera: Camera",
    "sample": ":material/gallery_thumbnail: Test images",
}


class Chosen(NamedTuple):
    """An image to classify. image: (H, W, 3) uint8; truth: the label of a test image."""

    image: np.ndarray
    name: str
    truth: str = ""


def page() -> None:
    """Draw the page. The upload comes first: an image can be chosen while the model is loaded."""
    st.title("Classify an image")
    sources, named = list(SOURCES), SOURCES.__getitem__
    source = st.segmented_control(
        "Source", sources, default="upload", required=True, format_func=named, label_visibility="collapsed"
    )
    file = _uploaded() if source == "upload" else st.camera_input("Photo", help=PRIVATE) if source == "camera" else None
    with failures_as_sentences():
        version, model, versions = choose_model()
        _introduce(version, model)
        square, chosen = (None, _sample(version)) if source == "sample" else (choose_square(model), None)
        if file is not None:
            try:
                chosen = Chosen(_decoded(file.getvalue()), file.name)
            except ImageError as error:
                st.warning(str(error), icon=":material/broken_image:")
        if chosen is not None:
            _classify(model, chosen, square, versions)


def choose_model() -> tuple[Version, Model, dict[str, Version]]:
    """The version that answers, its model, and the versions it was chosen among, by alias.

    The model is kept from when it was loaded: tags and aliases of its own version may have changed since.
    """
    with st.spinner("Loading the model …"):
        versions = registry.connect().rivals(champion.choose().name)
        version = champion.choose_among(versions)
        return version, champion.load(version), versions


def choose_square(model: Model) -> Square:
    """How images become square; at first as the model's version says."""
    rules, named = list(SQUARES), SQUARES.__getitem__
    return st.radio("Images that are not square", rules, rules.index(model.square), named, horizontal=True)


def _uploaded() -> UploadedFile | None:
    """The uploaded file to classify: the last one, or the one chosen among several."""
    files = st.file_uploader(
        f"Images, up to {images.MAX_MEGABYTES} MB each",
        type=list(images.EXTENSIONS),
        accept_multiple_files=True,
        max_upload_size=images.MAX_MEGABYTES,
        help=PRIVATE,
    )
    if len(files) < 2:
        return files[0] if files else None
    # Without a key: another upload makes another selectbox, which starts with the last file.
    # Numbered, as phones give every photo the same name.
    names = [f"{number}: {file.name}" for number, file in enumerate(files, start=1)]
    return files[st.selectbox("Image", range(len(files)), len(files) - 1, names.__getitem__)]


@st.cache_data(max_entries=1, scope="session", show_spinner=False)
def _decoded(content: bytes) -> np.ndarray:
    return images.load(content)


def _sample(version: Version) -> Chosen | None:
    """One of the test images, whose labels are known."""
    explorer = comparison.of(version).explorer()
    index = samples.choose(explorer.images, explorer.labels, explorer.class_names)
    if index is None:
        return None
    return Chosen(np.array(explorer.images[index]), f"Test image {index}", explorer.class_names[explorer.labels[index]])


def _introduce(version: Version, model: Model) -> None:
    roles = [alias for alias in version.aliases if alias != model.name]
    about = [", ".join(filter(None, (*roles, model.name))), f"{len(model.class_names)} classes"]
    if model.test_accuracy is not None:
        about.append(f"{bars.percent(model.test_accuracy)} top-1 on the test set")
    st.caption(f"**{version.name}**, version {version.number}: {' · '.join(filter(None, about))}")
    if version.name.startswith("demo-"):  # registered models are named after their data source
        st.info(
            "Demo model: trained on generated shapes and textures, it knows nothing of photographs. "
            "`dvc repro` trains on real images.",
            icon=":material/science:",
        )


def _classify(model: Model, chosen: Chosen, square: Square | None, versions: dict[str, Version]) -> None:
    seen = model.prepare(chosen.image, square)
    uploaded, prepared = st.columns(2)
    with uploaded:
        _show(chosen.image, "JPEG", "The image", chosen.name)
    with prepared:
        size = f"{len(seen)} by {len(seen)} pixels"
        _show(seen, "PNG", f"The image as the model sees it, {size}", f"What the model sees: {size}")  # JPEG smears
    st.subheader("Prediction", anchor=False)
    top = _answer(model, seen, chosen.truth, TOP_K)
    st.caption(words.PROMISE)
    with st.container(horizontal=True, gap="medium"):
        why = st.toggle("Explain", key="why", help="Which parts of the image the prediction rests on.")
        beside = len(versions) > 1 and st.toggle(f"All {len(versions)} models", key="beside")
    if why:
        _explain(model, seen, top)
    if beside:
        for column, (alias, version) in zip(st.columns(len(versions)), versions.items(), strict=True):
            with column.container(border=True):
                st.markdown(f"**{champion.label(alias, version)}**")
                try:  # one that does not load leaves the others alone
                    model = champion.load(version)
                    seen = model.prepare(chosen.image, square)
                    top = _answer(model, seen, chosen.truth, TOP_K_BESIDE)
                    if why:
                        _explain(model, seen, top)
                except RegistryError as error:
                    st.error(str(error), icon=":material/cloud_off:")


def _answer(model: Model, seen: np.ndarray, truth: str, top_k: int) -> tuple[str, float, int]:
    """Show a model's answer; returns the top class, its probability and its index."""
    logits = model.logits(seen[np.newaxis])
    rows = model.rows(logits, min(top_k, len(model.class_names)))[0]
    top, name = rows[0], rows[0]["class"]
    verdict = f"<p>{words.verdict(truth, name)}</p>" if truth else ""
    prediction_set = words.prediction_set(top["prediction_set"], len(model.class_names))
    st.html(f"{bars.chart(rows)}{verdict}<p>{prediction_set}</p>")
    if top["out_of_distribution"]:
        st.warning(
            f"Out-of-distribution: the prediction may mean nothing. {words.ood_rule(model)}", icon=":material/help:"
        )
    elif top["out_of_distribution"] is None:
        st.caption(words.ood_rule(model))
    return top["class"], top["probability"], int(logits.argmax())


def _explain(model: Model, seen: np.ndarray, top: tuple[str, float, int]) -> None:
    """Show the heat map of the top class: name, probability, index."""
    name, probability, index = top
    found = _occlusion(model, seen, index)
    _show(saliency.overlay(images.fit(seen, BOX * DENSITY), found.heat), "JPEG", f"What {name} rests on, in orange")
    st.html(f"<p>{words.explanation(name, probability, found.lowest)}</p>")


@st.cache_data(
    max_entries=500, show_spinner="Hiding each part in turn …", hash_funcs={Model: lambda model: repr(model.version)}
)
def _occlusion(model: Model, seen: np.ndarray, class_index: int) -> Saliency:
    return saliency.occlusion(model.probabilities, seen, class_index)


def _show(image: np.ndarray, sent_as: Literal["JPEG", "PNG"], alt: str, caption: str | None = None) -> None:
    width = max(1, round(BOX * image.shape[1] / max(image.shape)))
    st.image(images.fit(image, BOX * DENSITY), caption, alt=alt, width=width, output_format=sent_as)
