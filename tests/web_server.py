"""A web server on this machine for tests: serves a folder with ranges; can be slow, cut bodies, refuse, be stopped and started again."""

import contextlib
import email.utils
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class WebServer:
    """Serves ``folder`` as ``http://.../...`` and, as S3 does, lists it when it is asked ``?list-type=2&prefix=...``.

    Settings that tests change: ``delay_s`` before each chunk of a body, ``cut`` so many bodies in the middle and call ``after_cut``, answer
    the next ``unavailable`` requests with 503, those of paths that end in ``forbidden`` with 403, and all with ``status`` where it is
    set, ``ranges`` off. ``requests`` holds (method, path, Range header) of each request, ``headers`` the last one's.
    """

    def __init__(self, folder: Path):
        self.folder, self.port = folder, 0
        self.delay_s, self.cut, self.unavailable, self.status, self.ranges = 0.0, 0, 0, None, True
        self.forbidden: str | None = None
        self.after_cut: Callable[[], object] = lambda: None
        self.requests: list[tuple[str, str, str | None]] = []
        self.headers: dict[str, str] = {}
        self.connections: list[socket.socket] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        owner = self

        class Handler(_Handler):
            server_of_test = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def gets(self, suffix: str) -> list[str | None]:
        """The Range header of each GET of a path that ends so."""
        return [wanted for method, path, wanted in self.requests if method == "GET" and path.endswith(suffix)]


class _Handler(BaseHTTPRequestHandler):
    server_of_test: WebServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def setup(self):
        super().setup()
        self.server_of_test.connections.append(self.connection)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        owner, parts = self.server_of_test, urlsplit(self.path)
        owner.requests.append((self.command, parts.path, self.headers.get("Range")))
        owner.headers = dict(self.headers)
        path = owner.folder / unquote(parts.path).lstrip("/")
        if owner.unavailable > 0:
            owner.unavailable -= 1
            return self._answer(503, b"")
        if owner.status is not None:
            return self._answer(owner.status, b"")
        if owner.forbidden is not None and parts.path.endswith(owner.forbidden):
            return self._answer(403, b"")
        if "list-type=2" in parts.query:
            return self._answer(200, _listing(path, parse_qs(parts.query)["prefix"][0]))
        if not path.is_file():
            return self._answer(404, b"")
        return self._send_file(path)

    def _send_file(self, path: Path) -> None:
        owner, content, wanted = self.server_of_test, path.read_bytes(), self.headers.get("Range")
        headers = _facts(path)
        if not (wanted and owner.ranges):
            return self._answer(200, content, headers)
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
        stop = min(int(last) + 1 if last else len(content), len(content))
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(content)}"
        return self._answer(206, content[int(first) : stop], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        owner = self.server_of_test
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = len(body)
        if owner.cut > 0 and body:
            owner.cut -= 1
            stop, self.close_connection = len(body) // 2, True
        step = 1 << 16
        for start in range(0, stop, step):
            if owner.delay_s:
                time.sleep(owner.delay_s)
            try:
                self.wfile.write(body[start : min(start + step, stop)])
            except OSError:
                self.close_connection = True
                return
        if stop < len(body):
            owner.after_cut()


def _facts(path: Path) -> dict[str, str]:
    stat = path.stat()
    return {"ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"', "Last-Modified": email.utils.formatdate(stat.st_mtime, usegmt=True)}


def _listing(bucket: Path, prefix: str) -> bytes:
    rows = []
    for path in sorted((bucket / prefix).iterdir()):
        modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(path.stat().st_mtime))
        key = escape(str(path.relative_to(bucket)))
        etag = escape(_facts(path)["ETag"])
        rows.append(
            f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{path.stat().st_size}</Size></Contents>"
        )
    name = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return f"{name}<Name>{bucket.name}</Name><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>".encode()
