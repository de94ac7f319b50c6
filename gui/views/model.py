"""Model: the champion, why it is champion, how it was trained, and the champions before it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import streamlit as st

from gui import bars, champion, registry
from gui.registry import DECISION, ModelRegistry, Version
from gui.views.comparison_page import failures_as_sentences

if TYPE_CHECKING:
    from mlflow.entities import Run

SHOWN_OF_HASH = 12  # characters
METRICS = {  # of a run, on the test set
    "test/top1": ("top-1", "Accuracy of the top class, with its 95 % interval."),
    "test/top5": ("top-5", "How often the right class is among the top five."),
    "test/superclass_top1": ("superclass accuracy", "How often the top class lies in the right superclass."),
    "test/ece_calibrated": ("ECE", "Expected calibration error of the calibrated probabilities."),
}


def page() -> None:
    """Draw the page."""
    st.title("Champion")
    with failures_as_sentences():
        version = champion.choose()
        asked = registry.connect()
        _registered(version)
        with failures_as_sentences("training"):
            run = asked.training(version)
            _metrics(run.data.metrics)
            _origin(version, run)
            _run(asked, run)
        _champion_periods(asked, version.name)


def _registered(version: Version) -> None:
    model = version.tags.get("model")
    st.markdown(f"**{version.name}**, version {version.number}" + (f": {model}" if model else ""))
    aliases = ", ".join(f"`{alias}`" for alias in version.aliases)
    st.caption(f"Aliases: {aliases} · registered {_time(version.created / 1000)}")
    if decision := version.tags.get(DECISION):
        st.info(decision, icon=":material/trophy:")
    if version.description:
        with st.expander("Model card"):
            st.markdown(version.description)


def _metrics(metrics: Mapping[str, float]) -> None:
    found = {name: metrics[name] for name in METRICS if name in metrics}
    st.subheader("Test set", anchor=False)
    if not found:
        st.caption("The run holds no metrics of the test set.")
        return
    for column, (name, share) in zip(st.columns(len(found)), found.items(), strict=True):
        label, explained = METRICS[name]
        ends = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
        interval = " to ".join(f"{100 * end:.1f}" for end in ends if end is not None) or None
        column.metric(label, bars.percent(share), interval, delta_color="off", delta_arrow="off", help=explained)


def _origin(version: Version, run: "Run") -> None:
    st.subheader("Training", anchor=False)
    tags, start, end = run.data.tags, run.info.start_time, run.info.end_time
    commit = tags.get("git_commit", "")[:SHOWN_OF_HASH]
    facts: dict[str, list[str | None]] = {
        "Trained": [
            _time(start / 1000),
            f"{(end - start) / 60_000:.1f} minutes" if end else "",
            tags.get("resolved_device"),
            tags.get("resolved_precision"),
        ],
        "Code": [f"commit `{commit}`" if commit else "", "dirty" if tags.get("git_dirty") == "true" else ""],
        "Data": [version.tags.get("source"), _hash(version.tags.get("data_sha256"))],
        "Initial weights": [tags.get("resolved_weights"), _hash(tags.get("resolved_weights_sha256"))],
        "Weights": [_hash(version.tags.get("weights_sha256"))],
        "ONNX file": [_hash(version.tags.get("onnx_sha256"))],
        "DVC experiment": [tags.get("dvc_experiment")],
    }
    lines = {name: ", ".join(filter(None, parts)) for name, parts in facts.items()}
    st.markdown("\n".join(f"- {name}: {line}" for name, line in lines.items() if line))
    with st.expander(f"{len(run.data.params)} parameters"):
        st.table(dict(sorted(run.data.params.items())), border="horizontal", alt="Parameters of the training")


def _run(asked: ModelRegistry, run: "Run") -> None:
    place = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    if page := asked.address(place):
        st.link_button("Run in MLflow", page, icon=":material/open_in_new:")
    else:
        st.markdown("Curves and files of the run are in MLflow's UI:")
        st.code(asked.ui_command, language="bash", wrap_lines=True)
        st.caption(f"Then open <http://127.0.0.1:5000/#/{place}>.")


def _champion_periods(asked: ModelRegistry, name: str) -> None:
    st.subheader("Champion periods", anchor=False)
    import pandas as pd  # late: the app starts without it

    periods = pd.DataFrame(asked.history(name))
    for end in ("since", "until"):
        dates = pd.to_datetime(periods[end], utc=True, format="ISO8601", errors="coerce")
        periods[end] = dates.dt.strftime("%Y-%m-%d %H:%M")
    st.dataframe(
        periods,
        column_config={"since": "from (UTC)", "until": "until (UTC)", "rolled_back": "rolled back"},
        hide_index=True,
        placeholder="",
        alt="Champion periods, the present one first",
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _hash(sha256: str | None) -> str | None:
    return f"sha256 `{sha256[:SHOWN_OF_HASH]}`" if sha256 else None
