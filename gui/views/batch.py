"""Batch: many files or a ZIP file become a table."""

from collections.abc import Sequence
from io import StringIO

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gui import archives, batch, images, words
from gui.archives import ArchiveError, File
from gui.batch import Result
from gui.registry import Model, Square
from gui.views.classify import PRIVATE, choose_model, choose_square
from gui.views.comparison_page import failures_as_sentences


def page() -> None:
    """Draw the page: uploads, the model that predicts, the progress, the table."""
    st.set_page_config(layout="wide")
    st.title("Classify many images")
    uploads = st.file_uploader(
        f"Images, up to {images.MAX_MEGABYTES} MB each, or ZIP files, up to {archives.MAX_ARCHIVE_MEGABYTES} MB; "
        f"{archives.MAX_ENTRIES:,} images at once",
        type=[*images.EXTENSIONS, "zip"],
        accept_multiple_files=True,
        max_upload_size=archives.MAX_ARCHIVE_MEGABYTES,
        help=PRIVATE,
    )
    with failures_as_sentences():
        _, model, _ = choose_model()
        square = choose_square(model)
        if uploads:
            _show(_results(model, uploads, square), model)


def _results(model: Model, uploads: Sequence[UploadedFile], square: Square) -> list[Result]:
    """The predictions; those of the last uploads are kept, so that a rerun classifies nothing again."""
    asked = (model.version, square, [upload.file_id for upload in uploads])
    kept = st.session_state.get("batch")
    if kept is not None and kept[0] == asked:
        return kept[1]
    files, results = _unpacked(uploads)
    bar = st.progress(0.0)
    for done, result in enumerate(batch.classify(model, files, square, top_k=1), start=1):
        results.append(result)
        if done % batch.AT_ONCE == 0 or done == len(files):
            bar.progress(done / len(files), f"{done:,} of {len(files):,} images")
    bar.empty()
    st.session_state["batch"] = (asked, results)
    return results


def _unpacked(uploads: Sequence[UploadedFile]) -> tuple[list[File], list[Result]]:
    """The files to classify, and the results of those that are refused."""
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
    limit = f"Only {archives.MAX_ENTRIES:,} images are classified at once: upload it again without the others."
    refused += [Result(file.name, error=limit) for file in files[archives.MAX_ENTRIES :]]
    return files[: archives.MAX_ENTRIES], refused


def _show(results: Sequence[Result], model: Model) -> None:
    answers = [row for result in results for row in result.rows]
    errors = [{"image": result.image, "error": result.error} for result in results if result.error]
    st.markdown(f"**{len(answers):,}** of {len(results):,} images classified")
    if answers:
        columns = st.column_config
        st.dataframe(
            answers,
            hide_index=True,
            column_order=["image", "class", "superclass", "probability", "out_of_distribution", "prediction_set"],
            column_config={
                "probability": columns.ProgressColumn(format="percent"),
                "out_of_distribution": columns.CheckboxColumn("out-of-distribution", help=words.ood_rule(model)),
                "prediction_set": columns.ListColumn(words.SET.lower(), help=words.PROMISE),
            },
            alt="The prediction for each image",
        )
    if errors:
        st.warning(f"{len(errors):,} not classified", icon=":material/broken_image:")
        st.dataframe(errors, hide_index=True, alt="The files that were not classified, and why")
    text = StringIO(newline="")
    batch.write_csv(results, text, errors=True)
    st.download_button(
        "Download CSV", text.getvalue(), "predictions.csv", "text/csv", icon=":material/download:", on_click="ignore"
    )
