"""Model: what is deployed, how it won, what it was made of, and which champions there were."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from gui import bars, champion, registry
from gui.registry import CHAMPION, Registry, Reign, Training, Version
from gui.views.comparison_page import failures_as_sentences

SHOWN_OF_HASH = 12  # characters
METRICS = {  # of a run, on the test pictures
    "test/top1": ("top-1", "How often the first answer is right, with the 95 % interval."),
    "test/top5": ("top-5", "How often the right class is among the first five."),
    "test/superclass_top1": ("superclass", "How often the answer lies in the right superclass."),
    "test/ece_calibrated": ("calibration error", "Expected calibration error of the confidence shown in this app."),
}


def page() -> None:
    """Draw the page."""
    st.title("The model that answers")
    with failures_as_sentences():
        version = champion.choose()
        asked = registry.connect()
        _deployed(version)
        with failures_as_sentences("training"):
            training = asked.training(version)
            _metrics(training)
            _origin(version, training)
            _run(asked, training)
        _history(asked.history(version.name))


def _deployed(version: Version) -> None:
    model = version.tags.get("model")
    aliases = ", ".join(f"`{alias}`" for alias in version.aliases)
    st.markdown(f"**{version.name}**, version {version.number}" + (f": {model}" if model else ""))
    st.caption(f"Aliases: {aliases}. Registered {_moment(version.created / 1000)}.")
    if gate := version.tags.get("gate"):
        st.info(gate, icon=":material/trophy:")
    if version.description:
        with st.expander("What it is, and how to load it"):
            st.markdown(version.description)


def _metrics(training: Training) -> None:
    found = {name: training.metrics[name] for name in METRICS if name in training.metrics}
    if not found:
        st.caption("Its run holds no metrics on the test pictures.")
        return
    st.subheader("On the test pictures", anchor=False)
    for column, (name, share) in zip(st.columns(len(found)), found.items(), strict=True):
        label, explained = METRICS[name]
        ends = [training.metrics.get(f"{name}_{end}") for end in ("low", "high")]
        interval = " to ".join(f"{100 * end:.1f}" for end in ends if end is not None) or None
        column.metric(label, bars.percent(share), interval, delta_color="off", delta_arrow="off", help=explained)


def _origin(version: Version, training: Training) -> None:
    st.subheader("Where it comes from", anchor=False)
    tags = training.tags
    commit = tags.get("git_commit")
    dirty = " and changes that were not committed" if tags.get("git_dirty") == "true" else ""
    seconds = training.seconds
    facts = {
        "Code": f"commit `{commit[:SHOWN_OF_HASH]}`{dirty}" if commit else None,
        "Model file": _hash(version.tags.get("onnx_sha256")),
        "Data": _joined(version.tags.get("source"), _hash(version.tags.get("data_sha256"))),
        "Weights": _hash(version.tags.get("weights_sha256")),
        "Initial weights": _joined(tags.get("resolved_weights"), _hash(tags.get("resolved_weights_sha256"))),
        "Trained": _joined(
            _moment(training.started / 1000),
            f"{seconds / 60:.1f} minutes" if seconds else None,
            tags.get("resolved_device"),
            tags.get("resolved_precision"),
        ),
        "DVC experiment": f"`{tags['dvc_experiment']}`" if "dvc_experiment" in tags else None,
    }
    st.markdown("\n".join(f"- {name}: {said}" for name, said in facts.items() if said))
    with st.expander(f"Its {len(training.params)} parameters"):
        st.table(_sorted(training.params), border="horizontal", alt="Parameters of the training")


def _run(asked: Registry, training: Training) -> None:
    if training.page:
        st.link_button("Its run in MLflow", training.page, icon=":material/open_in_new:")
    else:
        st.markdown("To see its run, curves and files in MLflow, start MLflow's pages:")
        st.code(asked.ui_command, language="bash", wrap_lines=True)
        st.caption(f"Then open <http://127.0.0.1:5000/#/{training.place}>.")


def _history(reigns: Sequence[Reign]) -> None:
    st.subheader("Champions so far", anchor=False)
    st.dataframe(
        {
            "version": [reign.version.number for reign in reigns],
            "model": [reign.version.tags.get("model", "") for reign in reigns],
            "from": [_told(reign.since) for reign in reigns],
            "until": [_until(reign) for reign in reigns],
            "decision": [_decision(reign) for reign in reigns],
        },
        hide_index=True,
        column_config={"version": st.column_config.NumberColumn("version", pinned=True, width="small")},
        alt="The champions so far, the present one first",
    )


def _until(reign: Reign) -> str:
    if not reign.until and CHAMPION in reign.version.aliases:
        return "now"
    return _told(reign.until) + (", rolled back" if reign.rolled_back else "")


def _decision(reign: Reign) -> str:
    """What was decided last; earlier decisions about a version are not kept."""
    tags = reign.version.tags
    return tags.get("gate", "") if reign.since == tags["promoted_at"] else ""


def _told(iso: str | None) -> str:
    try:
        return _moment(datetime.fromisoformat(iso or "").timestamp())
    except ValueError:
        return ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _hash(sha256: str | None) -> str | None:
    return f"sha256 `{sha256[:SHOWN_OF_HASH]}`" if sha256 else None


def _joined(*parts: str | None) -> str | None:
    return ", ".join(filter(None, parts)) or None


def _sorted(params: Mapping[str, str]) -> dict[str, list[str]]:
    return {"parameter": sorted(params), "value": [params[name] for name in sorted(params)]}
