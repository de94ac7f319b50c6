"""The model that answers in this session: chosen, loaded once per version for all sessions, kept up to date."""

import streamlit as st

from gui import registry
from gui.registry import Model, Version

LOADED_AT_ONCE = 3  # models kept in memory


def choose() -> Version:
    """The champion to use, asked of the registry at every interaction; a selector where several are registered."""
    champions = registry.wanted(registry.connect().champions())
    if len(champions) == 1:
        return champions[0]
    names = [champion.name for champion in champions]
    name = st.selectbox("Model", names, key="model_name", help="The champion of each registered model, newest first.")
    return champions[names.index(name)]


def load(version: Version) -> Model:
    """The loaded model; says so when it is not the version that answered before."""
    model = _load(version)
    before = st.session_state.get("answering")
    if before is not None and before.name == version.name and before != version:
        st.toast(f"A new champion answers now: {version}.", icon=":material/trophy:")
    st.session_state["answering"] = version
    return model


@st.cache_resource(
    max_entries=LOADED_AT_ONCE, show_spinner=False, hash_funcs={Version: lambda version: version.identity}
)
def _load(version: Version) -> Model:
    return registry.load(version)
