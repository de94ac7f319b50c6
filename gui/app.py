"""The app's door: `streamlit run gui/app.py`. Each page is a module of gui/views with a function `page`."""

import ctypes
import gc
import logging
import sys
from contextlib import suppress
from pathlib import Path

import streamlit as st
from starlette.formparsers import MultiPartParser

M_MMAP_THRESHOLD = -3  # of mallopt(3)
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit puts gui/ there; its modules are imported as gui.* here as everywhere else
    sys.path.insert(0, ROOT)

from gui import archives  # noqa: E402
from gui.views import batch, classify, compare, mistakes, model  # noqa: E402

# Looking for garbage while MLflow is imported, which leaves none, takes half a second of the first answer.
gc.set_threshold(100_000, 50, 50)
# What is larger, as decoded pictures are, goes back to the system when it is freed. Left alone, glibc raises this limit
# with every larger piece, and the heap of each thread that Streamlit runs keeps some megabytes.
with suppress(AttributeError, OSError):
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)

# Beyond it, 1 MB by default, uploads go through a file.
MultiPartParser.spool_max_size = archives.MAX_ARCHIVE_MEGABYTES * 2**20

st.set_page_config(page_title="Picture classifier", page_icon="🔎", layout="centered")
pages = [
    st.Page(classify.page, title="Classify", url_path="classify", default=True),
    st.Page(batch.page, title="Batch", url_path="batch"),
    st.Page(compare.page, title="Compare", url_path="compare"),
    st.Page(mistakes.page, title="Mistakes", url_path="mistakes"),
    st.Page(model.page, title="Model", url_path="model"),
]
chosen = st.navigation(pages, position="top")
try:
    chosen.run()
except Exception:  # a bug: what Streamlit would say of it names no way on
    logging.getLogger("gui").exception("the page %s failed", chosen.title)
    st.error(
        "Something went wrong that should not have: try again or reload the page. The app's terminal says what it was.",
        icon=":material/bug_report:",
    )
    st.button("Try again", icon=":material/refresh:", key="again")
