"""The app: `streamlit run gui/app.py`. Each page is the function `page` of a module of gui/views."""

import logging
import sys
from pathlib import Path

import streamlit as st


def main() -> None:
    """Draw the page that was chosen. Streamlit runs this at every interaction."""
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:  # Streamlit puts gui/ there, not the folder above
        sys.path.insert(0, root)
    tune_process()
    from gui.views import batch, classify, compare, mistakes, model

    st.set_page_config(page_title="Image classifier", page_icon="🔎")
    st.html(Path(__file__).with_name("style.css"))
    views = {"Classify": classify, "Batch": batch, "Compare": compare, "Mistakes": mistakes, "Model": model}
    chosen = st.navigation(
        [
            st.Page(view.page, title=title, url_path=title.lower(), default=view is classify)
            for title, view in views.items()
        ],
        position="top",
    )
    try:
        chosen.run()
    except Exception:  # a bug: what Streamlit would say of it names no way on
        logging.getLogger("gui").exception("the page %s failed", chosen.title)
        st.error("Internal error: try again. The traceback is in the app's terminal.", icon=":material/bug_report:")
        st.button("Try again", icon=":material/refresh:", key="again")


@st.cache_resource(show_spinner=False)
def tune_process() -> None:
    """Keep answers fast, memory flat and uploads off the disk; once per process."""
    from starlette.formparsers import MultiPartParser

    from gui import process
    from gui.archives import MAX_ARCHIVE_MEGABYTES

    process.set_up()
    # Larger uploads go through a file; the default is 1 MB.
    MultiPartParser.spool_max_size = MAX_ARCHIVE_MEGABYTES * 2**20


if __name__ == "__main__":
    main()
