"""Compare: which model to ship, and why; what one classifies correctly that another does not."""

import re
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from gui import bars
from gui.comparison import LoggedComparison
from gui.grid import Tile
from gui.views.comparison_page import champion_and_comparison, choose, failures_as_sentences, gallery, shown_as

if TYPE_CHECKING:
    import pandas as pd

COSTS = {"milliseconds": "Latency", "minutes": "Training", "megabytes": "Size"}
MEASURES = {"top1": "Top-1", "loss": "Loss"}
CALIBRATIONS = {"after": "After calibration", "before": "Before"}
MEAN = "mean of all"


def page() -> None:
    """Draw the page: the verdict first, charts as soon as their library is there, images last."""
    st.set_page_config(layout="wide")
    st.title("Model comparison")
    with failures_as_sentences():
        version, compared = champion_and_comparison()
        with st.container(border=True):
            st.markdown(compared.verdict)
        st.caption(f"From the comparison that the champion was registered with: {shown_as(version)}.")
        _table(compared.table("summary"))
        _charts(compared)
        _one_right_the_other_wrong(compared)
        with st.expander("The whole report"):
            st.markdown(_without_links(compared.report))


def _table(summary: "pd.DataFrame") -> None:
    shares = ["top1", "low", "high", "superclass_top1", "ece"]
    shown = summary.assign(**{column: 100 * summary[column] for column in shares})
    shown["interval"] = [f"{low:.1f} to {high:.1f}" for low, high in zip(shown["low"], shown["high"], strict=True)]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown,
        hide_index=True,
        column_order=["model", "top1", "interval", "superclass_top1", "ece", "milliseconds", "minutes", "megabytes"],
        column_config={
            "model": text("model", pinned=True),
            "top1": number("top-1", format="%.2f %%", help="Top-1 accuracy on test."),
            "interval": text("95 % interval", help="Of top-1, over the test images; not the variance of training."),
            "superclass_top1": number(
                "superclass accuracy", format="%.2f %%", help="How often the prediction is in the right superclass."
            ),
            "ece": number("ECE", format="%.2f %%", help="Expected calibration error of the calibrated confidence."),
            "milliseconds": number("latency", format="%.1f ms", help="One image, median, on the CPU."),
            "minutes": number("training", format="%.1f min"),
            "megabytes": number("size", format="%.1f MB", help="Of the weights."),
        },
        alt="The models with their accuracy on the test images and their cost",
    )


def _charts(compared: LoggedComparison) -> None:
    from stages.report import charts  # takes a second: the verdict is there before

    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Accuracy against cost", anchor=False)
        cost = choose("Cost", COSTS, "cost")
        st.altair_chart(
            charts.accuracy_against_cost(compared.table("summary"), cost),
            alt=f"Top-1 of each model on test, with its 95 % interval, against {charts.COSTS[cost]}",
        )
    with right:
        st.subheader("Learning curves", anchor=False)
        measure = choose("Measure", MEASURES, "measure")
        st.altair_chart(
            charts.learning_curves(compared.table("curves"), compared.table("steps"), measure),
            alt=f"{MEASURES[measure]} against minutes of training, on validation and on training batches",
        )
        st.caption("Dots: validation, after each epoch. Lines: training batches.")
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Corrupted images", anchor=False)
        table = compared.table("robustness")
        corruptions = [MEAN, *table["corruption"].unique()]
        corruption = st.selectbox("Corruption", corruptions, key="corruption", persist_state="session")
        st.altair_chart(
            charts.robustness(table, None if corruption == MEAN else corruption),
            alt=f"Top-1 of each model by severity of the corruption: {corruption}",
        )
    with right:
        st.subheader("Calibration", anchor=False)
        state = choose("Confidence", CALIBRATIONS, "calibration")
        st.altair_chart(
            charts.reliability(compared.table("reliability"), state),
            alt="Accuracy by confidence; on the dashed line they agree",
        )
    st.subheader("Superclasses confused", anchor=False)
    model = st.selectbox("Predictions of", compared.models, key="confused", persist_state="session")
    st.altair_chart(
        charts.superclass_confusion(compared.table("superclasses"), model),
        alt=f"How often {model} predicts one superclass for another",
    )


def _one_right_the_other_wrong(compared: LoggedComparison) -> None:
    st.subheader("One model right, the other wrong", anchor=False)
    if len(compared.models) < 2:
        st.caption("There is one model only.")
        return
    with failures_as_sentences("images"):
        explorer = compared.explorer()
        left, right = st.columns(2)
        first = left.selectbox("One model", compared.models, key="first", persist_state="session")
        others = [model for model in compared.models if model != first]
        second = right.selectbox("Another model", others, key="second", persist_state="session")
        both = {model: explorer.predictions(model) for model in (first, second)}
        is_right = {model: own.predicted == explorer.labels for model, own in both.items()}
        rows = {
            f"Only {first} is right": is_right[first] & ~is_right[second],
            f"Only {second} is right": is_right[second] & ~is_right[first],
            "Both are wrong": ~is_right[first] & ~is_right[second],
        }
        kind = st.radio(
            "Images where",
            list(rows),
            format_func=lambda kind: f"{kind}: {rows[kind].sum():,} of {len(explorer.labels):,}",
        )
        found = np.flatnonzero(rows[kind])
        if not len(found):
            st.info("There is no such image.")
            return
        # The most confident mistake first.
        wrong = np.max([np.where(is_right[model], 0, own.confidence)[found] for model, own in both.items()], axis=0)
        found = found[np.argsort(-wrong, kind="stable")]

        def tile(row: int) -> Tile:
            said = [
                f"{model}: {explorer.class_names[own.predicted[row]]}, {bars.percent(float(own.confidence[row]))}"
                for model, own in both.items()
            ]
            return Tile(explorer.images[row], explorer.class_names[explorer.labels[row]], said)

        gallery(found, tile, f"{compared.run_id}-{first}-{second}-{kind}")


def _without_links(report: str) -> str:
    """The report without its title, the figures beside it and the files it points to: they are not on this page."""
    text = re.sub(r"^# .*\n+", "", report)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)
