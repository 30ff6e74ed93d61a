"""Many files over HTTP at once, each tried again while that is worth it.

In: :class:`Job` s, each an address and the file to make of it. A connection that is cut goes on
where it was, with a range request. A server that asks for a pause (429, 503) gets it from all
connections. What does not pass is a :class:`FetchError` in one line.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from tqdm import tqdm

from projects.openimages.common.errors import UserError
from projects.openimages.download.part import DamagedError, Part
from projects.openimages.download.remote import Remote, range_of, seconds_to_wait
from projects.openimages.download.sources import DEFAULT_CONNECTIONS

_CHUNK = 1 << 18
_HEADERS = {'Accept-Encoding': 'identity',  # sizes, ranges and checksums are of the file as it is
            'User-Agent': 'openimages-mmdet'}
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MOST_DAMAGED = 3
_MOST_MISSING = 100
_LONGEST_PAUSE = 3600
_LONGEST_BACKOFF = 60
_SECONDS_BETWEEN_NOTES = 10

Item = TypeVar('Item')
Result = TypeVar('Result')


class FetchError(UserError):
    """A file that cannot be had.

    Args:
        url: its address.
        reason: why.
        is_missing: the server is well and does not have it.
    """

    def __init__(self, url: str, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(reason, path=url)
        self.reason, self.is_missing = reason, is_missing


class _PassingError(Exception):
    """What may pass; ``wait`` is how many seconds the server wants to be left alone."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Job:
    """A file to fetch.

    Attributes:
        url: its address.
        target: the file to make; its folder is there.
        remote: what :func:`look_up` found; with it the part that an earlier run left goes on.
        is_zip: the checksums inside are to be tested.
    """

    url: str
    target: Path
    remote: Remote | None = None
    is_zip: bool = False


@dataclass(frozen=True)
class Patience:
    """How often to try.

    Attributes:
        attempts: in a row without a single byte.
        first_wait: seconds before the second; doubled each time, up to a minute.
        silence: seconds without a byte after which a connection counts as cut.
    """

    attempts: int = 9
    first_wait: float = 1.0
    silence: float = 60.0


PATIENT, BRIEF = Patience(), Patience(attempts=4)


def look_up(urls: Sequence[str], connections: int = DEFAULT_CONNECTIONS,
            patience: Patience = BRIEF) -> list[Remote]:
    """Ask for each file's size, version and checksum.

    Raises:
        FetchError: a file that is not there, or a server that cannot be reached.
    """
    found: dict[str, Remote] = {}

    async def ask(client: _Client, url: str) -> None:
        found[url] = await client.head(url)

    asyncio.run(_for_each(urls, ask, connections, patience))
    return [found[url] for url in urls]


def fetch_all(jobs: Iterable[Job], connections: int = DEFAULT_CONNECTIONS, *,
              on_bytes: Callable[[int], object], on_file: Callable[[], object] = lambda: None,
              keep_going: bool = False, patience: Patience = PATIENT) -> list[FetchError]:
    """Make the files of all jobs.

    Args:
        jobs: any number; taken one by one.
        connections: files at a time.
        on_bytes: is told how many bytes came; less than none where some had to be forgotten.
        on_file: is called after each file.
        keep_going: go on with the others where the server does not have a file. A hundred such
            files are no accident, and end the work.
        patience: how often to try.

    Returns:
        The files that the server does not have, if ``keep_going``.

    Raises:
        FetchError: a file that cannot be had.
        OSError: what the file system refuses, with the name of the file.
    """
    missing: list[FetchError] = []

    async def fetch(client: _Client, job: Job) -> None:
        try:
            await client.fetch(job, on_bytes)
        except FetchError as error:
            if not (keep_going and error.is_missing):
                raise
            missing.append(error)
            if len(missing) == _MOST_MISSING:
                raise FetchError(job.url, f'{error.reason}, as for {len(missing) - 1} other files; '
                                 'is it the right server?') from None
        else:
            on_file()

    asyncio.run(_for_each(jobs, fetch, connections, patience))
    return missing


async def _for_each(items: Iterable[Item], work: Callable[[_Client, Item], Awaitable[None]],
                    connections: int, patience: Patience) -> None:
    """``work`` on each item, on so many at a time; the first error ends the others."""
    remaining = iter(items)

    async def work_on_some(client: _Client) -> None:
        for item in remaining:
            await work(client, item)

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.silence,
                                    sock_read=patience.silence)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections),
                                     timeout=timeout, headers=_HEADERS, trust_env=True,
                                     read_bufsize=_CHUNK) as session:
        client = _Client(session, patience)
        tasks = [asyncio.create_task(work_on_some(client)) for _ in range(connections)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Client:
    def __init__(self, session: aiohttp.ClientSession, patience: Patience) -> None:
        self._session, self._patience = session, patience
        self._paused_until = self._last_note = 0.0

    async def head(self, url: str) -> Remote:
        """What the server says of a file."""

        async def ask() -> Remote:
            async with self._session.head(url, allow_redirects=True) as response:
                _check_status(response)
                return Remote.from_headers(_headers(response))

        return await self._persist(url, ask, lambda: 0)

    async def fetch(self, job: Job, on_bytes: Callable[[int], object]) -> None:
        """Make the file of a job."""
        with Part(job.target, job.remote, is_zip=job.is_zip) as part:
            on_bytes(part.size)
            for attempt in range(1, _MOST_DAMAGED + 1):
                if part.remote.size is None or part.size != part.remote.size:
                    await self._persist(job.url, lambda: self._receive(job.url, part, on_bytes),
                                        lambda: part.size)
                try:
                    await _in_thread(part.finish)  # the other connections go on
                    return
                except DamagedError as error:
                    if attempt == _MOST_DAMAGED:
                        raise FetchError(job.url, f'{error}; so {attempt} times') from None
                on_bytes(-part.size)
                part.restart(Remote())

    async def _receive(self, url: str, part: Part, on_bytes: Callable[[int], object]) -> None:
        """Ask for what a part lacks, and append it."""
        headers = {}
        if part.size and part.remote.version is not None:
            headers = {'Range': f'bytes={part.size}-', 'If-Range': part.remote.version}
        async with self._session.get(url, headers=headers) as response:
            if response.status not in (206, 416):
                _check_status(response)
            if not _goes_on(response, part):  # another version, or a server without ranges
                on_bytes(-part.size)
                part.restart(Remote())
                if response.status != 200:
                    raise _PassingError('the server did not send the rest of the file')
                part.restart(Remote.from_headers(_headers(response)))
            async for chunk in response.content.iter_chunked(_CHUNK):
                part.write(chunk)
                on_bytes(len(chunk))
        if part.remote.size is not None and part.size < part.remote.size:
            raise _PassingError(f'cut off after {part.size} of {part.remote.size} bytes')

    async def _persist(self, url: str, attempt: Callable[[], Awaitable[Result]],
                       reached: Callable[[], int]) -> Result:
        """What ``attempt`` returns; tried again while ``reached`` grows, and a few times more."""
        failures, best = 0, 0
        while True:
            await self._wait_for_pause()
            try:
                return await attempt()
            except _PassingError as error:
                trouble, asked = str(error), error.wait
            except aiohttp.InvalidURL:
                raise FetchError(url, 'not an address') from None
            except (aiohttp.ClientError, ConnectionError) as error:
                trouble, asked = _in_words(error), None
            failures, best = (1, reached()) if reached() > best else (failures + 1, best)
            if asked is not None and asked > _LONGEST_PAUSE:
                raise FetchError(url, f'{trouble}; to be tried again in {asked:.0f} s')
            if failures >= self._patience.attempts:
                raise FetchError(url, f'{trouble}; so {failures} times')
            wait = min(_LONGEST_BACKOFF, self._patience.first_wait * 2 ** (failures - 1))
            wait *= random.uniform(0.5, 1)  # or all connections would come back at once
            if asked is not None:
                self._paused_until = max(self._paused_until, _now() + asked)
            self._note(f'{url}: {trouble}; again in {max(wait, asked or 0):.0f} s',
                       is_worth_it=failures > 2 or (asked or 0) > _SECONDS_BETWEEN_NOTES)
            await asyncio.sleep(wait)

    async def _wait_for_pause(self) -> None:
        while (left := self._paused_until - _now()) > 0:
            await asyncio.sleep(left)

    def _note(self, message: str, *, is_worth_it: bool) -> None:
        if is_worth_it and _now() - self._last_note > _SECONDS_BETWEEN_NOTES:
            self._last_note = _now()
            tqdm.write(message, file=sys.stderr)


async def _in_thread(function: Callable[[], None]) -> None:
    """Run it in a thread; it comes to its end even if the task that waits is cancelled."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _goes_on(response: aiohttp.ClientResponse, part: Part) -> bool:
    """Whether an answer is the rest of the very file that a part is of."""
    if response.status != 206:
        return False
    headers = _headers(response)
    remote, start = Remote.from_headers(headers, is_range=True), range_of(headers)[0]
    return (part.size > 0 and start == part.size and remote.version == part.remote.version
            and part.remote.size in (None, remote.size))


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    message = f'HTTP {response.status} {response.reason or ""}'.strip()
    if response.status in _PASSING:
        raise _PassingError(message, seconds_to_wait(_headers(response)))
    raise FetchError(str(response.url), message, is_missing=response.status in (403, 404, 410))


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): ', '.join(response.headers.getall(name)) for name in response.headers}


def _in_words(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerTimeoutError):
        return 'no answer'
    return f'{type(error).__name__}: {error}'.removesuffix(': ')


def _now() -> float:
    return asyncio.get_running_loop().time()
