"""Mistakes: the test pictures and what a model says of them, the most confident mistakes first."""

from typing import Literal

import numpy as np
import streamlit as st

from gui import bars
from gui.comparison import Answers, Explorer
from gui.grid import Tile
from gui.views.comparison_page import champion_and_comparison, failures_as_sentences, gallery, shown_as

Kind = Literal["wrong", "right", "all"]
KINDS: dict[Kind, str] = {"wrong": "Mistakes", "right": "Right answers", "all": "All"}
ANY = "any"


def page() -> None:
    """Draw the page."""
    st.set_page_config(layout="wide")
    st.title("Mistakes")
    with failures_as_sentences():
        version, compared = champion_and_comparison()
        explorer = compared.explorer()
        st.caption(
            f"{len(explorer.labels):,} test pictures that no model was trained on, from the comparison that the "
            f"champion was registered with: {shown_as(version)}."
        )
        champions = version.tags.get("model", "")
        first = explorer.models.index(champions) if champions in explorer.models else 0
        left, right = st.columns(2)
        model = left.selectbox("Model", explorer.models, index=first, key="of-model", persist_state="session")
        with right:
            kind = st.segmented_control(
                "Show",
                list(KINDS),
                default="wrong",
                required=True,
                format_func=KINDS.__getitem__,
                key="kind",
                persist_state="session",
            )
        columns = st.columns(3)
        with columns[0]:
            truth = _class("It shows", explorer, "truth")
        with columns[1]:
            answer = _class("The model says", explorer, "answer")
        with columns[2]:
            superclass = st.selectbox(
                "Superclass of the picture",
                range(len(explorer.superclass_names)),
                index=None,
                format_func=explorer.superclass_names.__getitem__,
                placeholder=ANY,
                key="superclass",
                persist_state="session",
            )
        low, high = st.slider("Confidence", 0, 100, (0, 100), format="%d %%", key="confidence", persist_state="session")
        answers = explorer.answers(model)
        rows = select(explorer, answers, kind or "wrong", truth, answer, superclass, (low / 100, high / 100))
        if not len(rows):
            st.info("No test picture fits all of this: set one of the choices back to any.")
            return
        order = "the most confident first" if kind != "all" else "mistakes before right answers, the surest first"
        noun = "picture" if len(rows) == 1 else "pictures"
        st.markdown(f"**{len(rows):,} {noun}**, {order}")
        chosen = f"{compared.run_id}-{model}-{kind}-{truth}-{answer}-{superclass}-{low}-{high}"
        gallery(rows, lambda row: _tile(explorer, answers, row), chosen)


def select(
    explorer: Explorer,
    answers: Answers,
    kind: Kind,
    truth: int | None,
    answer: int | None,
    superclass: int | None,
    confidence: tuple[float, float],
) -> np.ndarray:
    """The rows of the test pictures that fit, (n,) int64: mistakes first, the most confident ones before others.

    truth, answer: classes; superclass: of the picture; None: any. confidence: from and to, both included.
    """
    labels = np.asarray(explorer.labels)
    is_wrong = answers.predicted != labels
    fits = (answers.confidence >= confidence[0]) & (answers.confidence <= confidence[1])
    if kind != "all":
        fits &= is_wrong if kind == "wrong" else ~is_wrong
    if truth is not None:
        fits &= labels == truth
    if answer is not None:
        fits &= answers.predicted == answer
    if superclass is not None:
        fits &= explorer.superclass_index[labels] == superclass
    rows = np.flatnonzero(fits)
    return rows[np.lexsort((-answers.confidence[rows], ~is_wrong[rows]))]


def _class(label: str, explorer: Explorer, key: str) -> int | None:
    return st.selectbox(
        label,
        sorted(range(len(explorer.class_names)), key=explorer.class_names.__getitem__),
        index=None,
        format_func=explorer.class_names.__getitem__,
        placeholder=ANY,
        key=key,
        persist_state="session",
    )


def _tile(explorer: Explorer, answers: Answers, row: int) -> Tile:
    truth, answer = int(explorer.labels[row]), int(answers.predicted[row])
    sure = bars.percent(float(answers.confidence[row]))
    said = f"said {explorer.class_names[answer]}, {sure}" if answer != truth else f"right, {sure}"
    return Tile(explorer.images[row], explorer.class_names[truth], [said])
