"""The model of a session of the app: chosen, loaded once per version for all sessions, kept up to date."""

import gc

import streamlit as st

from gui import registry
from gui.registry import Model, Version

LOADED_AT_ONCE = 6  # models kept in memory


def choose() -> Version:
    """The champion to use, asked of the registry at every interaction; a selector where several are registered.

    Says so when another one than at the interaction before has taken over, of this registered model or of another.
    """
    champions = {champion.name: champion for champion in registry.connect().champions()}
    name = next(iter(champions))
    if len(champions) > 1:
        name = st.selectbox(
            "Registered model",
            list(champions),
            key="model_name",
            persist_state="session",
            help="Each has its own champion; the newest one first.",
            on_change=_forget_the_last,  # what a person chose is no news
        )
    champion = champions[name]
    seen = st.session_state.setdefault("champions", {})  # by registered model
    if champion != seen.get(name, st.session_state.get("champion", champion)):
        st.toast(f"There is a new champion: {champion}.", icon=":material/trophy:")
    seen[name] = st.session_state["champion"] = champion
    return champion


def _forget_the_last() -> None:
    st.session_state.pop("champion", None)


def choose_among(versions: dict[str, Version]) -> Version:
    """One of the versions that ModelRegistry.rivals gave; a selector where there are several, the champion first."""
    if len(versions) == 1:
        return next(iter(versions.values()))
    alias = st.selectbox(
        "Model",
        list(versions),
        format_func=lambda alias: label(alias, versions[alias]),
        key="alias",
        persist_state="session",
        help="Every version of the registered model that bears an alias.",
    )
    return versions[alias]


def label(alias: str, version: Version) -> str:
    """A version as people choose it: vit_transfer (champion, version 3)."""
    name = version.tags.get("model") or alias
    roles = [role for role in (alias, *version.aliases) if role != name]
    return f"{name} ({', '.join([*dict.fromkeys(roles), f'version {version.number}'])})"


@st.cache_resource(max_entries=LOADED_AT_ONCE, show_spinner=False, hash_funcs={Version: repr})
def load(version: Version) -> Model:
    """The loaded model of a version; RegistryError if it does not load."""
    model = registry.load(version)
    # Streamlit collects garbage after every interaction, and would look through all of MLflow each time, for 0.2 of the
    # 0.25 seconds that an answer takes then. What is there now is left out, once what former models have left is gone.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return model
