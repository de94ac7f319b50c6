"""Mistakes: the test images and what a model predicts for them, the most confident mistakes first."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from gui import bars
from gui.comparison import ImageExplorer, TopPredictions
from gui.grid import Tile
from gui.views.comparison_page import champion_and_comparison, choose, failures_as_sentences, gallery, shown_as

KINDS = {"wrong": "Mistakes", "right": "Right predictions", "all": "All"}


def page() -> None:
    """Draw the page."""
    st.set_page_config(layout="wide")
    st.title("Mistakes")
    with failures_as_sentences():
        version, compared = champion_and_comparison()
        explorer = compared.explorer()
        st.caption(
            f"{len(explorer.labels):,} test images that no model was trained on, from the comparison that the "
            f"champion was registered with: {shown_as(version)}."
        )
        champions = version.tags.get("model", "")
        first = explorer.models.index(champions) if champions in explorer.models else 0
        left, right = st.columns(2)
        model = left.selectbox("Model", explorer.models, index=first, key="of-model", persist_state="session")
        with right:
            kind = choose("Show", KINDS, "kind")
        left, middle, right = st.columns(3)
        truth = _name(left, "Label", explorer.class_names, "truth")
        predicted = _name(middle, "Prediction", explorer.class_names, "predicted")
        superclass = _name(right, "Superclass of the label", explorer.superclass_names, "superclass")
        low, high = st.slider("Confidence", 0, 100, (0, 100), format="%d %%", key="confidence", persist_state="session")
        predictions = explorer.predictions(model)
        rows = select(explorer, predictions, kind, truth, predicted, superclass, (low / 100, high / 100))
        if not len(rows):
            st.info("No test image fits all of this: set one of the choices back to any.")
            return
        order = "most confident first" if kind != "all" else "mistakes first, each part most confident first"
        st.markdown(f"**{len(rows):,} image{'s' * (len(rows) != 1)}**, {order}")

        def tile(row: int) -> Tile:
            label, answer = explorer.labels[row], predictions.predicted[row]
            said = "right" if answer == label else f"predicted {explorer.class_names[answer]}"
            said += f", {bars.percent(float(predictions.confidence[row]))}"
            return Tile(explorer.images[row], explorer.class_names[label], [said])

        gallery(rows, tile, f"{compared.run_id}-{model}-{kind}-{truth}-{predicted}-{superclass}-{low}-{high}")


def select(
    explorer: ImageExplorer,
    predictions: TopPredictions,
    kind: str,
    truth: int | None = None,
    predicted: int | None = None,
    superclass: int | None = None,
    confidence: tuple[float, float] = (0, 1),
) -> np.ndarray:
    """The rows of the test images that fit, (n,) int64: mistakes first, the most confident ones before others.

    kind: of KINDS. truth, predicted: classes; superclass: of the label; None: any. confidence: both ends included.
    """
    labels = np.asarray(explorer.labels)
    is_wrong = predictions.predicted != labels
    fits = (predictions.confidence >= confidence[0]) & (predictions.confidence <= confidence[1])
    if kind != "all":
        fits &= is_wrong == (kind == "wrong")
    superclasses = explorer.superclass_index[labels]
    for values, wanted in ((labels, truth), (predictions.predicted, predicted), (superclasses, superclass)):
        if wanted is not None:
            fits &= values == wanted
    rows = np.flatnonzero(fits)
    return rows[np.lexsort((-predictions.confidence[rows], ~is_wrong[rows]))]


def _name(place: DeltaGenerator, label: str, names: Sequence[str], key: str) -> int | None:
    """The index of one of the names, None for any."""
    return place.selectbox(
        label,
        sorted(range(len(names)), key=names.__getitem__),
        index=None,
        format_func=names.__getitem__,
        placeholder="any",
        key=key,
        persist_state="session",
    )
