"""Fetching the archive: a real server on loopback that misbehaves on demand."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.common.errors import UserError
from stages.data.sources import fetch as module

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Serves `content`; ranges: knows them; breaks: how many answers end half way; statuses: sent instead."""

    def do_GET(self):
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.server.asked.append(start)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        body = self.server.content[start if self.server.ranges else 0 :]
        if not body:
            self.send_error(416)
            return
        self.send_response(206 if self.server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.breaks, server.statuses, server.asked = CONTENT, True, 0, [], []
        server.url = f"http://127.0.0.1:{server.server_port}/images.tar.gz"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def get(tmp_path, monkeypatch):
    """get(url, sha256) fetches into get.raw, by way of get.scratch; get.pauses: the waits between attempts."""

    def get(url, sha256=SHA256):
        return module.fetch(str(url), sha256, get.raw, get.scratch)

    get.raw, get.scratch, get.pauses = tmp_path / "raw", tmp_path / "scratch", []
    monkeypatch.setattr(module.time, "sleep", get.pauses.append)
    return get


def files(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    ("behaviour", "asked"),
    [
        ({}, [0]),
        ({"breaks": 2}, [0, HALF, HALF + HALF // 2]),
        ({"breaks": 1, "ranges": False}, [0, HALF]),
        ({"statuses": [503, 429]}, [0, 0, 0]),
    ],
)
def test_a_download_arrives_whole_resumed_where_it_broke(server, get, behaviour, asked):
    vars(server).update(behaviour)
    assert get(server.url).read_bytes() == CONTENT
    assert server.asked == asked
    assert files(get.raw) == ["images.tar.gz"]
    assert files(get.scratch) == []


def test_a_later_run_resumes_where_an_earlier_one_gave_up(server, get):
    server.breaks = module.ATTEMPTS
    with pytest.raises(UserError, match="run again to resume"):
        get(server.url)
    assert get.pauses == [1, 2, 4, 8]
    assert files(get.raw) == []
    assert get(server.url).read_bytes() == CONTENT
    assert server.asked[-1] > HALF


def test_a_complete_part_is_kept_and_one_that_is_too_long_is_not(server, get):
    get.scratch.mkdir()
    part = get.scratch / f"images.tar.gz.{SHA256[:12]}.part"
    part.write_bytes(CONTENT + b"more")
    with pytest.raises(UserError, match="run again"):
        get(server.url)
    part.write_bytes(CONTENT)
    assert get(server.url).read_bytes() == CONTENT
    assert server.asked == [len(CONTENT) + 4, len(CONTENT)]


def test_a_missing_file_is_asked_for_once_and_a_wrong_one_leaves_nothing_behind(server, get):
    server.statuses, server.content = [404], CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match=f"cannot download {server.url} .404 .*local copy"):
        get(server.url)
    with pytest.raises(UserError, match=f"^{server.url} has sha256 .* expected {SHA256}[^\n]*$"):
        get(server.url)
    assert server.asked == [0, 0]
    assert files(get.raw) == files(get.scratch) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/images.tar.gz", "Connection refused"),  # the discard port: nobody listens
        ("http://[x", "is no URL"),
        ("http://", "names no file"),
        ("http:///images.tar", "No host"),
        ("ftp://example.org/a.tar", "expected http://, https://, file:// or a path"),
        ("nowhere/mine.tar", "no file that can be read"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_with_the_url(get, url, message):
    with pytest.raises(UserError, match=message) as caught:
        get(url)
    assert url in str(caught.value)
    assert len(get.pauses) == (module.ATTEMPTS - 1 if ":9/" in url else 0), "only a network that is down is tried again"
    assert "\n" not in str(caught.value)
    assert files(get.raw) == []


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_file_is_copied_and_replaces_the_old_archive(server, get, tmp_path, prefix):
    for _ in range(2):
        get(server.url)
    assert server.asked == [0], "what is there already is not fetched again"
    source = tmp_path / "mine.tar"
    source.write_bytes(b"mine")
    assert get(f"{prefix}{source}", hashlib.sha256(b"mine").hexdigest()).read_bytes() == source.read_bytes()
    assert files(get.raw) == ["mine.tar"]
