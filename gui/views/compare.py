"""Compare: which model to ship, and why; what one gets right that another does not."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from gui import bars
from gui.comparison import Comparison, Explorer
from gui.grid import Tile
from gui.views.comparison_page import champion_and_comparison, failures_as_sentences, gallery, shown_as

if TYPE_CHECKING:
    import pandas as pd

COSTS = {"milliseconds": "Latency", "minutes": "Training", "megabytes": "Size"}
MEASURES = {"top1": "Top-1", "loss": "Loss"}
CALIBRATIONS = {"after": "After calibration", "before": "Before"}
MEAN = "mean of all"


def page() -> None:
    """Draw the page: the verdict first, charts as soon as their library is there, pictures last."""
    st.set_page_config(layout="wide")
    st.title("Which model to ship?")
    with failures_as_sentences():
        version, compared = champion_and_comparison()
        with st.container(border=True):
            st.markdown(compared.verdict)
        st.caption(f"From the comparison that the champion was registered with: {shown_as(version)}.")
        _table(compared.summary())
        _charts(compared)
        _one_right_the_other_not(compared)
        with st.expander("The whole report"):
            st.markdown(_without_links(compared.report))


def _table(summary: "pd.DataFrame") -> None:
    shares = ["top1", "low", "high", "superclass", "ece"]
    shown = summary.assign(**{column: 100 * summary[column] for column in shares})
    shown["interval"] = [f"{low:.1f} to {high:.1f}" for low, high in zip(shown["low"], shown["high"], strict=True)]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown,
        hide_index=True,
        column_order=["model", "top1", "interval", "superclass", "ece", "milliseconds", "minutes", "megabytes"],
        column_config={
            "model": text("model", pinned=True),
            "top1": number("top-1", format="%.2f %%", help="How often the first answer is right, on test."),
            "interval": text("95 % interval", help="Of top-1: the luck of the pictures, not that of the training."),
            "superclass": number("superclass", format="%.2f %%", help="The answer lies in the right superclass."),
            "ece": number("ECE", format="%.2f %%", help="Expected calibration error of the calibrated confidence."),
            "milliseconds": number("latency", format="%.1f ms", help="One picture, median, on the CPU."),
            "minutes": number("training", format="%.1f min"),
            "megabytes": number("size", format="%.1f MB", help="Of the weights."),
        },
        alt="The models with their accuracy on the test pictures and their cost",
    )


def _charts(compared: Comparison) -> None:
    from gui import charts  # takes a second: the verdict is there before

    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("What accuracy costs", anchor=False)
        cost = _choice("Cost", COSTS, "cost")
        st.altair_chart(
            charts.accuracy_against_cost(compared.summary(), cost),
            alt=f"Top-1 of each model on test, with its 95 % interval, against {charts.COSTS[cost]}",
        )
    with right:
        st.subheader("Learning curves", anchor=False)
        measure = _choice("Measure", MEASURES, "measure")
        st.altair_chart(
            charts.learning_curves(compared.table("curves"), compared.table("steps"), measure),
            alt=f"{MEASURES[measure]} against minutes of training, on validation and on the batches before",
        )
        st.caption("Dots: on validation, after each epoch. Lines: on the batches trained on.")
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("When pictures get worse", anchor=False)
        table = compared.table("robustness")
        corruptions = [MEAN, *table["corruption"].unique()]
        corruption = st.selectbox("Corruption", corruptions, key="corruption", persist_state="session")
        st.altair_chart(
            charts.robustness(table, None if corruption == MEAN else corruption),
            alt=f"Top-1 of each model by severity of the corruption: {corruption}",
        )
    with right:
        st.subheader("Can its confidence be believed?", anchor=False)
        calibration = _choice("Confidence", CALIBRATIONS, "calibration")
        st.altair_chart(
            charts.reliability(compared.table("reliability"), calibration),
            alt="How often answers of a confidence are right; on the dashed line as often as promised",
        )
    st.subheader("Superclasses mixed up", anchor=False)
    table = compared.table("superclasses")
    model = st.selectbox("Answers of", compared.models, key="confused", persist_state="session")
    st.altair_chart(
        charts.superclass_confusion(table, model, list(table["actual"].unique())),
        alt=f"How often {model} takes pictures of one superclass for another",
    )


def _choice(label: str, options: Mapping[str, str], key: str) -> str:
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


def _one_right_the_other_not(compared: Comparison) -> None:
    st.subheader("What one gets right that the other does not", anchor=False)
    if len(compared.models) < 2:
        st.caption("There is one model only.")
        return
    with failures_as_sentences("pictures"):
        explorer = compared.explorer()
        left, right = st.columns(2)
        first = left.selectbox("One model", compared.models, key="first", persist_state="session")
        others = [model for model in compared.models if model != first]
        second = right.selectbox("Another model", others, key="second", persist_state="session")
        is_right = {model: explorer.answers(model).predicted == explorer.labels for model in (first, second)}
        rows = {
            f"Only {first} is right": is_right[first] & ~is_right[second],
            f"Only {second} is right": is_right[second] & ~is_right[first],
            "Both are wrong": ~is_right[first] & ~is_right[second],
        }
        kind = st.radio(
            "Pictures where",
            list(rows),
            format_func=lambda kind: f"{kind}: {rows[kind].sum():,} of {len(explorer.labels):,}",
        )
        found = np.flatnonzero(rows[kind])
        if not len(found):
            st.info("There is no such picture.")
            return
        # The surest wrong answer first.
        wrong = [np.where(is_right[model], 0, explorer.answers(model).confidence)[found] for model in (first, second)]
        found = found[np.argsort(-np.max(wrong, axis=0), kind="stable")]
        gallery(found, lambda row: _tile(explorer, row, (first, second)), f"{compared.run_id}-{first}-{second}-{kind}")


def _tile(explorer: Explorer, row: int, models: tuple[str, str]) -> Tile:
    said = []
    for model in models:
        answers = explorer.answers(model)
        name = explorer.class_names[answers.predicted[row]]
        said.append(f"{model}: {name}, {bars.percent(float(answers.confidence[row]))}")
    return Tile(explorer.images[row], explorer.class_names[explorer.labels[row]], said)


def _without_links(report: str) -> str:
    """The report without its title, the figures beside it and the files it points to: they are not on this page."""
    text = re.sub(r"^# .*\n+", "", report)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)
