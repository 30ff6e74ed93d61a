"""What a server says of a file in its headers: how large, which version, with which checksum.

Headers are by lower-case name, those that came several times joined by commas.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

_CONTENT_RANGE = re.compile(r'bytes (\d+)-\d+/(\d+)')
_STORAGE = 'x-amz-request-id'
"""A header of storages whose ETag may be an MD5; other servers' 32 digits may be of anything."""


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        size: bytes; None where the server does not say.
        version: what a conditional request names it by, its ETag or date; None without either.
        md5, crc32c: its checksums, 16 bytes and a number; None where the server does not say.
    """

    size: int | None = None
    version: str | None = None
    md5: bytes | None = None
    crc32c: int | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, is_range: bool = False) -> Remote:
        """Read the headers of an answer that is the whole file or, ``is_range``, a part of it."""
        if is_range:
            size = range_of(headers)[1]
        else:
            length = headers.get('content-length', '')
            size = int(length) if length.isdecimal() else None
        etag = headers.get('etag', '')
        version = etag if etag.startswith('"') else headers.get('last-modified')
        google = _google_hashes(headers)
        crc32c = google.get('crc32c')
        return cls(size, version, google.get('md5') or _md5_of_etag(headers, etag),
                   None if crc32c is None else int.from_bytes(crc32c, 'big'))


def range_of(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The first byte of a range that was sent, and the size of the whole file."""
    found = _CONTENT_RANGE.fullmatch(headers.get('content-range', ''))
    return (int(found[1]), int(found[2])) if found else (None, None)


def _google_hashes(headers: Mapping[str, str]) -> dict[str, bytes]:
    """By name; https://cloud.google.com/storage/docs/xml-api/reference-headers"""
    if headers.get('x-goog-stored-content-encoding', 'identity') != 'identity':
        return {}  # they are of the compressed bytes
    hashes = {}
    for item in headers.get('x-goog-hash', '').split(','):
        name, _, text = item.strip().partition('=')
        with suppress(binascii.Error):
            hashes[name] = base64.b64decode(text, validate=True)
    return hashes


def _md5_of_etag(headers: Mapping[str, str], etag: str) -> bytes | None:
    """A storage's ETag is the MD5 of what came to it in one piece, unless it has keys of its own.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    is_plain = (headers.get('x-amz-server-side-encryption', 'AES256') == 'AES256'
                and 'x-amz-server-side-encryption-customer-algorithm' not in headers)
    digits = re.fullmatch(r'"([0-9a-f]{32})"', etag)
    return bytes.fromhex(digits[1]) if digits and _STORAGE in headers and is_plain else None


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` asks for, given in seconds or as a date; None without it."""
    text = headers.get('retry-after', '').strip()
    if text.isdecimal():
        return float(text)
    date = parsedate_tz(text)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())
