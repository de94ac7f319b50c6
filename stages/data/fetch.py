"""Fetching a file over HTTP or from a local path: resumed, retried, checked, and never half there."""

import errno
import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from stages.common.errors import UserError

TIMEOUT = (10, 30)  # seconds to connect, and to wait for the next bytes
ATTEMPTS = 5
CHUNK = 1 << 16  # bytes; what a breaking connection loses at most


class _TransferError(Exception):
    """The transfer broke in a way that another attempt may mend."""


def fetch(url: str, sha256: str, folder: Path, scratch: Path, *, pause: Callable[[float], None] = time.sleep) -> Path:
    """Bring the file at `url` into `folder`, where it is the only file afterwards; returns its path.

    url: http(s)://..., file://... or a local path. sha256: of the whole file, checked before the file gets its name.
    scratch: where a partial download waits to be resumed by the next call. A file that is already in `folder` with
    this checksum is kept. Raises UserError with one line that names the URL and what to do.
    """
    local = _local_path(url)
    name = Path(unquote(urlsplit(url).path)).name if local is None else local.name
    if not name:
        raise UserError(f"data.url = {url!r} names no file: give the archive's URL or path")
    target = folder / name
    if target.is_file() and file_sha256(target) == sha256:
        print(f"{target} is there already, checksum right")
    else:
        scratch.mkdir(parents=True, exist_ok=True)
        # The name carries the checksum: a part of another file is never taken for a part of this one.
        part = scratch / f"{name}.{sha256[:12]}.part"
        try:
            if local is not None:
                _copy(local, part)
            else:
                _download(url, part, pause)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the disk is full, {url} does not fit into {scratch.resolve()}: make room and run again"
            ) from error
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


def file_sha256(file: Path) -> str:
    """The sha256 of a file's content, 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local_path(url: str) -> Path | None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"data.url = {url!r} is no URL ({error}): correct it") from error
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in url:
        raise UserError(f"data.url = {url!r}: expected http://, https://, file:// or a path")
    return Path(url).expanduser()


def _copy(source: Path, part: Path) -> None:
    try:
        shutil.copyfile(source, part)
    except OSError as error:
        part.unlink(missing_ok=True)
        # A full disk is told of the source, too.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or Path(error.filename or "") != source:
            raise
        raise UserError(f"data.url = {str(source)!r} cannot be read ({error.strerror}): correct the path") from error


def _download(url: str, part: Path, pause: Callable[[float], None]) -> None:
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            seconds = 2.0**attempt
            print(f"{url}: {problem}; trying again in {seconds:.0f} s")
            pause(seconds)
        try:
            _transfer(url, part)
            return
        except _TransferError as error:
            problem = str(error)
    raise UserError(
        f"cannot download {url} ({problem}; {ATTEMPTS} attempts): check the network and run again, it goes on where it "
        "stopped; or set data.url to a local copy"
    )


def _transfer(url: str, part: Path) -> None:
    """One attempt: append to `part` what it lacks."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes as they are, so that sizes and ranges mean what they say
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                # Complete already (the checksum will tell), or longer than the file: then start afresh.
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return
                part.unlink()
                raise _TransferError("the partial file did not fit")
            if response.status_code >= 500 or response.status_code == requests.codes.too_many_requests:
                raise _TransferError(f"the server answered {response.status_code} {response.reason}")
            if not response.ok:
                raise UserError(
                    f"cannot download {url}: the server answered {response.status_code} {response.reason}; "
                    "correct data.url or set it to a local copy"
                )
            resumed = response.status_code == requests.codes.partial_content
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                raise _TransferError("the server sent another range than was asked for")
            start = have if resumed else 0  # a server that knows no ranges sends the whole file
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            _require_space(part, (total or 0) - start)
            with (
                part.open("ab" if resumed else "wb") as stream,
                tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.name.split(".")[0]) as bar,
            ):
                for chunk in response.iter_content(CHUNK):
                    stream.write(chunk)
                    bar.update(len(chunk))
            if total is not None and part.stat().st_size < total:
                raise _TransferError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")
    except requests.exceptions.InvalidURL as error:
        raise UserError(f"data.url = {url!r} is no URL ({error}): correct it") from error
    except requests.RequestException as error:
        raise _TransferError(" ".join(str(error).split())[:150]) from error


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{free:,} bytes free, {needed:,} needed")
