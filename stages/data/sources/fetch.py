"""Fetch a file over HTTP or from a local path: resumed after an interruption, retried, checked by its sha256.

Written here, on requests, because neither pooch nor `dvc import-url` resumes: they start a broken download afresh.
"""

import os
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.files import file_sha256

TIMEOUT = (10, 30)  # seconds to connect, and to wait for the next bytes
ATTEMPTS = 5
CHUNK = 1 << 16  # bytes


def fetch(url: str, sha256: str, folder: Path, scratch: Path) -> Path:
    """Bring the file at `url` into `folder`, where it is the only file afterwards; returns its path.

    url: http(s)://..., file://... or a local path. sha256: of the whole file, checked before it enters `folder`.
    scratch: holds a partial download, which the next call resumes. A file with this sha256 that is in `folder` already
    is kept. Raises UserError with one line that names the URL and what to do.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"data.url = {url!r} is no URL ({error}): correct it") from error
    is_remote = parts.scheme in ("http", "https")
    if not is_remote and parts.scheme != "file" and "://" in url:
        raise UserError(f"data.url = {url!r}: expected http://, https://, file:// or a path")
    source = Path(unquote(parts.path)) if is_remote or parts.scheme == "file" else Path(url).expanduser()
    if not source.name:
        raise UserError(f"data.url = {url!r} names no file: give the archive's URL or path")
    target = folder / source.name
    if not (target.is_file() and file_sha256(target) == sha256):
        scratch.mkdir(parents=True, exist_ok=True)
        # The sha256 in its name keeps the part of another file from being taken for a part of this one.
        part = scratch / f"{source.name}.{sha256[:12]}.part"
        if is_remote:
            _download(url, part)
        elif source.is_file() and os.access(source, os.R_OK):
            shutil.copyfile(source, part)
        else:
            raise UserError(f"data.url = {url!r} is no file that can be read: correct the path")
        found = file_sha256(part)
        if found != sha256:
            size = part.stat().st_size
            part.unlink()
            raise UserError(
                f"{url} has sha256 {found} ({size:,} bytes), expected {sha256}: the file is damaged or another one; "
                "run again, or set data.url and data.sha256 to a copy you trust"
            )
        folder.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    for other in folder.iterdir():
        if other != target and other.is_file():
            other.unlink()
    return target


def _download(url: str, part: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part)
            return
        except requests.RequestException as error:
            problem = " ".join(str(error).split())[:300]
            print(f"{url}: {problem} (attempt {attempt + 1} of {ATTEMPTS})")
            status = 0 if error.response is None else error.response.status_code
            # Another attempt is no use: requests takes the URL for none (a ValueError), or the server for a mistake.
            if isinstance(error, ValueError) or (400 <= status < 500 and status != requests.codes.too_many_requests):
                break
            if attempt + 1 < ATTEMPTS:
                time.sleep(2**attempt)
    raise UserError(
        f"cannot download {url} ({problem}): correct data.url, or check the network and run again to resume, or set "
        "data.url to a local copy"
    )


def _append(url: str, part: Path) -> None:
    """One attempt: append to `part` what it lacks; RequestException where the transfer breaks."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}  # uncompressed: ranges count those bytes
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to send; the sha256 tells whether the part is the file
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0  # the server knows no ranges and sends the whole file
        length = start + int(response.headers.get("Content-Length", 0))
        with (
            part.open("ab" if start else "wb") as stream,
            tqdm(total=length or None, initial=start, unit="B", unit_scale=True, desc=part.name.split(".")[0]) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                bar.update(stream.write(chunk))
