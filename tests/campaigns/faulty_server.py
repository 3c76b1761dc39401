"""A web server on this machine that misbehaves as scripted: one entry of ``script`` for each request, then no more."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 2**14


class FaultyServer(ThreadingHTTPServer):
    """Serves ``data`` under every path, and remembers what it was asked for and how many bytes of body it sent."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.headers = {"ETag": '"first"'}
        self.script: list[Reply] = []
        self.asked: list[Message] = []
        self.sent = 0
        self.after_sending: tuple[int, Callable[[], None]] | None = None
        self.closing = threading.Event()

    @property
    def source(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data/"


class Handler(BaseHTTPRequestHandler):
    server: FaultyServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        # a small buffer, so that hardly more has been sent than the client has read
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        super().setup()

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append(self.headers)
        with suppress(ConnectionError):
            (self.server.script.pop(0) if self.server.script else well)(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def range_start(self) -> int:
        """Where the client wants to go on, 0 if the version that it knows is out of date."""
        validators = (self.server.headers.get("ETag"), self.server.headers.get("Last-Modified"))
        if self.headers.get("If-Range") not in validators:
            return 0
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            self.wfile.write(piece)
            self.server.sent += len(piece)
            due = self.server.after_sending  # the action may clear it, in another thread
            if due and self.server.sent >= due[0]:
                time.sleep(0.02)
                due[1]()


Reply = Callable[[Handler], None]


def well(handler: Handler, body_bytes: int | None = None) -> None:
    """Answer as a good server does, or break the connection off after some bytes of the body."""
    data, headers = handler.server.data, handler.server.headers
    start = handler.range_start()
    if start and start >= len(data):
        handler.reply(416, headers | {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
        return
    headers = headers | {"Content-Length": str(len(data) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.reply(206 if start else 200, headers, data[start:][:body_bytes])


def cut(body_bytes: int) -> Reply:
    """The connection ends after that many bytes of the body."""
    return partial(well, body_bytes=body_bytes)


def whole(handler: Handler) -> None:
    """A server that knows no ranges."""
    data = handler.server.data
    handler.reply(200, handler.server.headers | {"Content-Length": str(len(data))}, data)


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
    """A reply of one's own making."""
    return lambda handler: handler.reply(status, headers or {"Content-Length": str(len(body))}, body)


def hang_up(handler: Handler) -> None:
    """No reply at all."""


def stall(body_bytes: int) -> Reply:
    """Nothing more comes after that many bytes of the body, and the connection stays."""

    def reply(handler: Handler) -> None:
        well(handler, body_bytes)
        handler.wfile.flush()
        handler.server.closing.wait(10)

    return reply


def stuck(body_bytes: int, stalls: bool) -> Reply:
    """Always the same bytes from the beginning, whatever was asked for, and then a cut or a stall."""

    def reply(handler: Handler) -> None:
        data = handler.server.data
        handler.reply(200, {"Content-Length": str(len(data))}, data[:body_bytes])
        if stalls:
            handler.wfile.flush()
            handler.server.closing.wait(10)

    return reply


@contextmanager
def faulty_server(data: bytes) -> Iterator[FaultyServer]:
    with FaultyServer(data) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
