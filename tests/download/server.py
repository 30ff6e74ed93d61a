"""A local server of files that behaves like the public storages, and misbehaves on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

Fault = Callable[['Handler', bytes], bool]
"""Looks at a request for some bytes; True if it has answered it, or spoiled it, itself."""


class Request(NamedTuple):
    method: str
    path: str
    range: str | None


@dataclass
class Server:
    """Serves a folder.

    Attributes:
        folder: of the files.
        checksums: ``'google'`` and ``'s3'`` send MD5s as these storages do, ``'google pieces'`` a
            CRC32C only, ``'other'`` an ETag of as many digits that is no MD5.
        has_ranges: range requests are understood.
        faults: by path, what goes wrong with the next GETs of it, one each.
        requests: all that came.
    """

    folder: Path
    checksums: str = 'google'
    has_ranges: bool = True
    faults: defaultdict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Request] = field(default_factory=list)
    url: str = ''

    def gets(self, text: str = '') -> list[Request]:
        """The GET requests whose path has a text in it."""
        return [each for each in self.requests if each.method == 'GET' and text in each.path]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder on a free port of this machine."""
    server = Server(folder)

    class Own(Handler):
        state = server

    http = _Http(('127.0.0.1', 0), Own)
    server.url = f'http://127.0.0.1:{http.server_port}'
    thread = threading.Thread(target=http.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Http(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


class Handler(BaseHTTPRequestHandler):
    state: Server
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_: object) -> None:
        """Tests look at ``requests`` instead."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path).lstrip('/')
        self.state.requests.append(Request(self.command, path, self.headers['Range']))
        file = self.state.folder / path
        if not file.is_file():
            self.say(404)
            return
        data = file.read_bytes()
        faults = self.state.faults[path]
        if self.command == 'HEAD' or not (faults and faults.popleft()(self, data)):
            self.send(data)

    def say(self, status: int, **headers: str) -> None:
        """An answer without content."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def send(self, data: bytes, content: Callable[[bytes], bytes] = lambda data: data,
             after: Callable[[], object] = lambda: None) -> None:
        """A file, or the range that was asked for, with its headers.

        Args:
            data: the whole file.
            content: what is sent of what should be sent.
            after: is called when that has gone.
        """
        etag = etag_of(self.state.checksums, data)
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers['Range'] or '')
        start = 0
        if asked and self.state.has_ranges and self.headers['If-Range'] in (None, etag):
            start = int(asked[1])
            if start >= len(data):
                self.say(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(data) - start))
        for name, value in checksum_headers(self.state.checksums, data):
            self.send_header(name, value)
        self.end_headers()
        if self.command == 'GET':
            sent = content(data[start:])
            self.wfile.write(sent)
            self.wfile.flush()
            after()
            self.close_connection = self.close_connection or len(sent) != len(data) - start


def etag_of(checksums: str, data: bytes) -> str:
    more = b'.' if checksums in ('other', 'google pieces') else b''
    return f'"{hashlib.md5(data + more).hexdigest()}"'


def checksum_headers(checksums: str, data: bytes) -> list[tuple[str, str]]:
    headers = [('ETag', etag_of(checksums, data)), ('Last-Modified', formatdate(0, usegmt=True))]
    if checksums == 'google':
        text = base64.b64encode(hashlib.md5(data).digest()).decode()
        headers += [('x-goog-hash', 'crc32c=AAAAAA=='), ('x-goog-hash', f'md5={text}')]
    if checksums == 'google pieces':
        text = base64.b64encode(crc32c(data).to_bytes(4, 'big')).decode()
        headers.append(('x-goog-hash', f'crc32c={text}'))
    if checksums == 's3':
        headers.append(('x-amz-request-id', 'ABC'))
    return headers


@cache
def _bits() -> list[int]:
    """The CRC32C's register after each byte."""
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


def crc32c(data: bytes) -> int:
    """Byte by byte, as it is defined."""
    register, table = 0xFFFFFFFF, _bits()
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 255]
    return register ^ 0xFFFFFFFF


def cut(after: int) -> Fault:
    """The connection ends after some bytes."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.send(data, lambda content: content[:after])
        return True

    return fault


def spoil(handler: Handler, data: bytes) -> bool:
    """One bit in the middle is another."""
    middle = len(data) // 2
    handler.send(data, lambda content: (content[:middle] + bytes([content[middle] ^ 1])
                                        + content[middle + 1:]))
    return True


def answer(status: int, **headers: str) -> Fault:
    """A status and no file."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.say(status, **headers)
        return True

    return fault


def stall(after: int, until: threading.Event) -> Fault:
    """Some bytes, and no more before an event; then the connection ends."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.send(data, lambda content: content[:after], lambda: until.wait(60))
        return True

    return fault
