"""Fetching the archive: a real server on loopback that misbehaves on demand."""

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.common.errors import UserError
from stages.data import fetch as module
from stages.data.fetch import fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `ranges`: knows them; `breaks`: how many answers end half way; `status`: answered instead."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges, self.breaks, self.statuses, self.asked = True, 0, [], []
        self.content = CONTENT

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/pictures.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        content = self.server.content
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
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
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(tmp_path):
    def get(url, sha256=SHA256):
        return fetch(url, sha256, tmp_path / "raw", tmp_path / "scratch", pause=lambda seconds: None)

    get.raw, get.scratch = tmp_path / "raw", tmp_path / "scratch"
    return get


def files(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_download_arrives_whole_under_its_own_name(server, get):
    assert get(server.url).read_bytes() == CONTENT
    assert files(get.raw) == ["pictures.tar.gz"]
    assert files(get.scratch) == []


def test_a_broken_transfer_goes_on_where_it_stopped(server, get):
    server.breaks = 2
    assert get(server.url).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={1 << 19}-", f"bytes={(1 << 19) + (1 << 18)}-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, get):
    server.breaks = module.ATTEMPTS
    with pytest.raises(UserError, match=r"the connection ended|IncompleteRead"):
        get(server.url)
    assert files(get.raw) == []
    assert len(files(get.scratch)) == 1
    assert get(server.url).read_bytes() == CONTENT
    assert server.asked[-1] is not None


def test_a_server_without_ranges_sends_the_whole_file_again(server, get):
    server.ranges, server.breaks = False, 1
    assert get(server.url).read_bytes() == CONTENT


def test_a_complete_part_is_not_fetched_again(server, get):
    get.scratch.mkdir()
    (get.scratch / f"pictures.tar.gz.{SHA256[:12]}.part").write_bytes(CONTENT)
    assert get(server.url).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, get):
    get.scratch.mkdir()
    (get.scratch / f"pictures.tar.gz.{SHA256[:12]}.part").write_bytes(CONTENT + b"more")
    assert get(server.url).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(server, get):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match="expected") as caught:
        get(server.url)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(get.raw) == files(get.scratch) == []


def test_server_errors_are_tried_again(server, get):
    server.statuses = [503, 500]
    assert get(server.url).read_bytes() == CONTENT


def test_a_missing_file_is_not_tried_again(server, get):
    server.statuses = [404]
    with pytest.raises(UserError, match="404 Not Found.*set it to a local copy"):
        get(server.url)
    assert len(server.asked) == 1


def test_no_network_is_one_line_with_the_url_and_the_way_on(get):
    url = "http://127.0.0.1:9/pictures.tar.gz"  # the discard port: nobody listens
    with pytest.raises(UserError, match="5 attempts.*set data.url to a local copy") as caught:
        get(url)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(get.raw) == []


def test_the_pauses_between_attempts_grow(get):
    pauses = []
    with pytest.raises(UserError):
        fetch("http://127.0.0.1:9/a.tar", SHA256, get.raw, get.scratch, pause=pauses.append)
    assert pauses == [2, 4, 8, 16]


def test_a_full_disk_is_noticed_before_the_transfer(server, get, monkeypatch):
    usage = type(module.shutil.disk_usage("/"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(1000, 990, 10))
    with pytest.raises(UserError, match=f"the disk is full, {server.url} does not fit into .*make room"):
        get(server.url)
    assert files(get.raw) == []
    assert files(get.scratch) == []


def test_a_disk_that_fills_up_while_copying_is_told_with_the_path_and_leaves_nothing(get, tmp_path, monkeypatch):
    source = tmp_path / "mine.tar"
    source.write_bytes(CONTENT)

    def copyfile(source, target):
        target.write_bytes(CONTENT[:10])
        raise OSError(errno.ENOSPC, "No space left on device", source)

    monkeypatch.setattr(module.shutil, "copyfile", copyfile)
    with pytest.raises(UserError, match=f"the disk is full, {source} does not fit into"):
        get(str(source))
    assert files(get.raw) == []
    assert files(get.scratch) == []


def test_an_address_that_is_no_url_is_refused(get):
    with pytest.raises(UserError, match=r"data.url = 'http://\[x' is no URL"):
        get("http://[x")


@pytest.mark.parametrize("form", ["{path}", "file://{path}"])
def test_a_local_path_is_copied_and_stays(get, tmp_path, form):
    source = tmp_path / "mine.tar"
    source.write_bytes(CONTENT)
    assert get(form.format(path=source)).read_bytes() == CONTENT
    assert source.exists()


def test_a_local_path_that_is_wrong_is_named(get):
    with pytest.raises(UserError, match="nowhere/mine.tar.*No such file"):
        get("nowhere/mine.tar")


def test_other_schemes_are_refused(get):
    with pytest.raises(UserError, match="expected http://, https://, file:// or a path"):
        get("ftp://example.org/a.tar")


def test_the_right_file_is_not_fetched_twice(server, get):
    get(server.url)
    get(server.url)
    assert len(server.asked) == 1


def test_another_url_replaces_the_old_archive(server, get, tmp_path):
    get(server.url)
    other = tmp_path / "other.tar"
    other.write_bytes(b"other")
    get(str(other), hashlib.sha256(b"other").hexdigest())
    assert files(get.raw) == ["other.tar"]
