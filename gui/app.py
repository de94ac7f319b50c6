"""The app's door: `streamlit run gui/app.py`. Each page is a module of gui/views with a function `page`."""

import sys
from pathlib import Path

import streamlit as st
from starlette.formparsers import MultiPartParser

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit puts gui/ there; its modules are imported as gui.* here as everywhere else
    sys.path.insert(0, ROOT)

from gui import pictures  # noqa: E402
from gui.views import classify, compare, mistakes, model  # noqa: E402

MultiPartParser.spool_max_size = pictures.MAX_MEGABYTES * 2**20  # beyond it, 1 MB by default, uploads go through a file

st.set_page_config(page_title="Picture classifier", page_icon="🔎", layout="centered")
st.navigation(
    [
        st.Page(classify.page, title="Classify", url_path="classify", default=True),
        st.Page(compare.page, title="Compare", url_path="compare"),
        st.Page(mistakes.page, title="Mistakes", url_path="mistakes"),
        st.Page(model.page, title="Model", url_path="model"),
    ],
    position="top",
).run()
