"""Batch: many files or a ZIP file become a table."""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gui import archives, batch, champion, pictures, words
from gui.archives import ArchiveError, File
from gui.batch import Row
from gui.pictures import Squaring
from gui.registry import Model, RegistryError
from gui.views.classify import SQUARINGS

STYLE = "<style>.unread { max-height: 20rem; overflow: auto; overflow-wrap: anywhere; }</style>"


def page() -> None:
    """Draw the page: uploads, the model that answers, the progress, the table."""
    st.title("Many pictures at once")
    uploads = st.file_uploader(
        f"Pictures, up to {pictures.MAX_MEGABYTES} MB each, or ZIP files of them, up to "
        f"{archives.MAX_ARCHIVE_MEGABYTES} MB and {archives.MAX_ENTRIES:,} pictures",
        type=[*pictures.EXTENSIONS, "zip"],
        accept_multiple_files=True,
        max_upload_size=archives.MAX_ARCHIVE_MEGABYTES,
        help="They stay in the app's memory: they are neither stored nor logged.",
    )
    squaring: Squaring = st.radio(
        "The model looks at a square:", list(SQUARINGS), format_func=SQUARINGS.__getitem__, horizontal=True
    )
    try:
        version = champion.choose_among(champion.rivals(champion.choose()))
        if uploads:
            with st.spinner(f"Loading {version} …"):
                model = champion.load(version)
            _show(_rows(model, uploads, squaring), words.how_strange(model))
    except RegistryError as error:
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again", icon=":material/refresh:")


def _rows(model: Model, uploads: Sequence[UploadedFile], squaring: Squaring) -> list[Row]:
    """The answers; those of the last uploads are kept, so that a click on the table classifies nothing again."""
    asked = (model.version.identity, squaring, [upload.file_id for upload in uploads])
    kept = st.session_state.get("batch")
    if kept is not None and kept[0] == asked:
        return kept[1]
    files, rows = _unpacked(uploads)
    bar = st.progress(0.0, f"Reading {len(files):,} pictures …")
    for done, row in enumerate(batch.classify(model, files, squaring), start=1):
        rows.append(row)
        if done % batch.AT_ONCE == 0 or done == len(files):
            bar.progress(done / len(files), f"{done:,} of {len(files):,} pictures")
    bar.empty()
    st.session_state["batch"] = (asked, rows)
    return rows


def _unpacked(uploads: Sequence[UploadedFile]) -> tuple[list[File], list[Row]]:
    """The files to classify, and rows of those that are refused already."""
    files: list[File] = []
    refused: list[Row] = []
    for upload in uploads:
        content = upload.getvalue()
        if not archives.is_archive(content):
            files.append(File(upload.name, upload.getvalue))
            continue
        try:
            files += [File(f"{upload.name}/{file.name}", file.read) for file in archives.files(content)]
        except ArchiveError as error:
            refused.append(Row(upload.name, problem=str(error)))
    excess = files[archives.MAX_ENTRIES :]
    refused += [Row(file.name, problem=f"Only {archives.MAX_ENTRIES:,} pictures are taken at once.") for file in excess]
    return files[: archives.MAX_ENTRIES], refused


def _show(rows: Sequence[Row], strange: str) -> None:
    if not rows:
        st.info("There is no picture in this: choose another ZIP file, or pictures.", icon=":material/folder_off:")
        return
    answered = [row for row in rows if not row.problem]
    unread = [row for row in rows if row.problem]
    st.markdown(f"**{len(answered):,}** of {len(rows):,} files classified.")
    if answered:
        st.dataframe(
            [asdict(row) | {"confidence": 100 * (row.confidence or 0)} for row in answered],
            column_order=["file", "class_name", "superclass_name", "confidence", "likely", "strange"],
            column_config={
                "file": "File",
                "class_name": "Class",
                "superclass_name": "Superclass",
                "confidence": st.column_config.ProgressColumn(
                    "Confidence", min_value=0, max_value=100, format="%.1f %%"
                ),
                "likely": st.column_config.TextColumn("90 % certainty", help="The classes that hold the right one."),
                "strange": st.column_config.CheckboxColumn("Strange", help=strange),
            },
            hide_index=True,
            alt="One row for each classified file",
        )
    if unread:
        st.warning(f"{len(unread):,} could not be read:", icon=":material/broken_image:")
        lines = "".join(f"<li><b>{escape(row.file)}</b>: {escape(row.problem)}</li>" for row in unread)
        st.html(f'{STYLE}<ul class="unread" tabindex="0">{lines}</ul>')
    st.download_button("All of it as CSV", batch.as_csv(rows), "answers.csv", "text/csv", icon=":material/download:")
