"""Batch: many files or a ZIP file become a table."""

from collections.abc import Sequence
from html import escape
from io import StringIO

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gui import archives, batch, champion, pictures, words
from gui.archives import ArchiveError, File
from gui.batch import Result
from gui.registry import Model, RegistryError, Square
from gui.views.classify import choose_square

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
    try:
        version = champion.choose_among(champion.rivals(champion.choose()))
        with st.spinner(f"Loading {version} …"):
            model = champion.load(version)
        square = choose_square(model)
        if uploads:
            _show(_results(model, uploads, square), model)
    except RegistryError as error:
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again", icon=":material/refresh:")


def _results(model: Model, uploads: Sequence[UploadedFile], square: Square) -> list[Result]:
    """The answers; those of the last uploads are kept, so that a click on the table classifies nothing again."""
    asked = (model.version.identity, square, [upload.file_id for upload in uploads])
    kept = st.session_state.get("batch")
    if kept is not None and kept[0] == asked:
        return kept[1]
    files, results = _unpacked(uploads)
    bar = st.progress(0.0, f"Reading {len(files):,} pictures …")
    for done, result in enumerate(batch.classify(model, files, square, top_k=1), start=1):
        results.append(result)
        if done % batch.AT_ONCE == 0 or done == len(files):
            bar.progress(done / len(files), f"{done:,} of {len(files):,} pictures")
    bar.empty()
    st.session_state["batch"] = (asked, results)
    return results


def _unpacked(uploads: Sequence[UploadedFile]) -> tuple[list[File], list[Result]]:
    """The files to classify, and those that are refused already."""
    files: list[File] = []
    refused: list[Result] = []
    for upload in uploads:
        content = upload.getvalue()
        if not archives.is_archive(content):
            files.append(File(upload.name, upload.getvalue))
            continue
        try:
            files += [File(f"{upload.name}/{file.name}", file.read) for file in archives.files(content)]
        except ArchiveError as error:
            refused.append(Result(upload.name, error=str(error)))
    excess = files[archives.MAX_ENTRIES :]
    refused += [
        Result(file.name, error=f"Only {archives.MAX_ENTRIES:,} pictures are taken at once.") for file in excess
    ]
    return files[: archives.MAX_ENTRIES], refused


def _show(results: Sequence[Result], model: Model) -> None:
    if not results:
        st.info("There is no picture in this: choose another ZIP file, or pictures.", icon=":material/folder_off:")
        return
    answered = [row for result in results for row in batch.records(result)]
    unread = [result for result in results if result.error]
    st.markdown(f"**{len(answered):,}** of {len(results):,} files classified.")
    if answered:
        st.dataframe(
            [
                row | {"probability": 100 * row["probability"], "prediction_set": ", ".join(row["prediction_set"])}
                for row in answered
            ],
            # The set last, which may be long; every rank is 1.
            column_order=["image", "class", "superclass", "probability", "out_of_distribution", "prediction_set"],
            column_config={
                "image": "Image",
                "class": "Class",
                "superclass": "Superclass",
                "probability": st.column_config.ProgressColumn(
                    "Probability", min_value=0, max_value=100, format="%.1f %%"
                ),
                "prediction_set": st.column_config.TextColumn("90 % prediction set", help=words.PROMISE),
                "out_of_distribution": st.column_config.CheckboxColumn(
                    "Out of distribution", help=words.how_out_of_distribution(model)
                ),
            },
            hide_index=True,
            alt="One row for each classified file",
        )
    if unread:
        st.warning(f"{len(unread):,} could not be read:", icon=":material/broken_image:")
        lines = "".join(f"<li><b>{escape(result.image)}</b>: {escape(result.error)}</li>" for result in unread)
        st.html(f'{STYLE}<ul class="unread" tabindex="0">{lines}</ul>')
    text = StringIO(newline="")
    batch.write_csv(results, text, errors=True)
    st.download_button("All of it as CSV", text.getvalue(), "answers.csv", "text/csv", icon=":material/download:")
