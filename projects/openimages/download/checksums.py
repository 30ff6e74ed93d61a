"""Whether a file is the one that the server has: its size and its checksum.

Google's storage states an MD5 and a CRC32C, but of files that were put together from pieces the
CRC32C only. Python has none, so it is computed here on arrays: a block is cut into lanes that go
through the table side by side, and what they leave is joined.

Source: https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4. The CRC is linear: a register that
meets bytes does as zero does that meets the same bytes with the register added to the first four;
and zero that meets zeros stays zero.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from projects.openimages.download.remote import Remote

_POLYNOMIAL = 0x82F63B78
_LANES, _PAIRS = 4096, 2064
"""A lane goes through the table two bytes at a time. Its length is no power of two, or all of its
neighbours' bytes would want the same lines of the processor's cache."""
_BLOCK = 2 * _LANES * _PAIRS


def find_difference(path: Path, remote: Remote) -> str | None:
    """How a file is seen to be another than a server's; None where it is not."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f'{size} bytes, expected {remote.size}'
    if remote.md5 is not None:
        md5 = _md5_of(path)
        return None if md5 == remote.md5 else f'MD5 {md5.hex()}, expected {remote.md5.hex()}'
    if remote.crc32c is not None:
        crc = crc32c_of(path)
        return None if crc == remote.crc32c else f'CRC32C {crc:08x}, expected {remote.crc32c:08x}'
    return None


def _md5_of(path: Path) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def crc32c_of(path: Path) -> int:
    """The CRC32C of a file's bytes."""
    register = 0xFFFFFFFF
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            register = _meet(register, block) if len(block) >= 4 else _meet_few(register, block)
    return register ^ 0xFFFFFFFF


def _meet(register: int, block: bytes) -> int:
    """The register after 4 to ``_BLOCK`` bytes."""
    padded = np.zeros(_BLOCK, np.uint8)
    start = _BLOCK - len(block)
    padded[start:] = np.frombuffer(block, np.uint8)
    padded[start:start + 4] ^= np.frombuffer(register.to_bytes(4, 'little'), np.uint8)
    pairs = np.ascontiguousarray(padded.view('<u2').reshape(_LANES, _PAIRS).T)
    first, second, third, fourth = _past_a_lane()
    joined = 0
    for lane in _through_table(np.zeros(_LANES, np.uint32), pairs).tolist():
        joined = lane ^ (first[joined & 255] ^ second[joined >> 8 & 255]
                         ^ third[joined >> 16 & 255] ^ fourth[joined >> 24])
    return joined


def _meet_few(register: int, block: bytes) -> int:
    """The register after some bytes, one by one."""
    for byte in block:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register


def _through_table(registers: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """L registers, uint32, each after P pairs of bytes, (P, L) uint16."""
    table = _two_bytes()
    for row in pairs:
        registers = registers ^ row
        registers = table[registers & 0xFFFF] ^ (registers >> 16)
    return registers


@cache
def _two_bytes() -> np.ndarray:
    """(65536,) uint32: a register of so much, after two zeros."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1)
    return table


@cache
def _past_a_lane() -> list[list[int]]:
    """For each byte of a register, and each value of it, the register after a lane of zeros."""
    values = (np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None])
    zeros = np.zeros((_PAIRS, 1), np.uint16)
    return _through_table(values.reshape(-1), zeros).reshape(4, 256).tolist()
