"""Files of other machines: asked for again where trying again may help, and what went wrong in plain words."""

import ftplib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fsspec.asyn import sync
from fsspec.spec import AbstractFileSystem

from apn.image import ImageError
from apn.provenance import clean
from apn.scan.files import UnreachableError

Found = TypeVar("Found")

MAX_BYTES = 128 << 20  # of a file that is held in memory

PAUSES_S = (0.5, 1.0, 2.0)  # before each further try
# What another try does not change. ValueError: an address that cannot be, a certificate that is refused. Of FTP: no
# such file, a wrong password. TimeoutError: who has not answered for minutes (aiohttp: 0.5 to connect, 5 in all) would
# hold a worker four times as long.
_LASTING = (
    ValueError,
    TimeoutError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ftplib.error_perm,
)


def patiently(get: Callable[[], Found]) -> Found:
    """What `get` returns, at once or after the pauses. Raises what `apn.image` has words for, else ImageError."""
    pauses = iter(PAUSES_S)
    while True:
        try:
            return get()
        except (FileNotFoundError, PermissionError, MemoryError, ImageError):
            raise
        except Exception as error:  # so broad because each file system raises its own package's errors
            pause = next(pauses, None) if _may_pass(error) else None
            if pause is None:
                raise ImageError(f"cannot be fetched ({_reason(error)})") from error
        time.sleep(pause)


def check_size(size: int, most: int) -> None:
    """Raises ImageError for a file of more bytes than may be held in memory."""
    if size > most:
        raise ImageError(f"the file has {size:,} bytes, more than the limit of {most:,} (--max-bytes)")


def start_of(file_system: AbstractFileSystem, path: str, most: int) -> bytes:
    """The whole file. Raises ImageError where it has more than `most` bytes, having read hardly more than those."""
    if "https" in file_system.protocol:  # a server may not know the size, or not care for a range that it is asked for
        content: bytes = sync(file_system.loop, _start_by_http, file_system, path, most)
    else:
        content = _range(file_system, path, most + 1)
    if len(content) > most:
        raise ImageError(f"the file has more than the limit of {most:,} bytes (--max-bytes)")
    return content


async def _start_by_http(file_system: Any, address: str, most: int) -> bytes:
    """As `HTTPFileSystem._cat_file`, but that it hangs up once there is more than `most`."""
    session, content = await file_system.set_session(), bytearray()
    async with session.get(file_system.encode_url(address), **file_system.kwargs) as answer:
        file_system._raise_not_found_for_status(answer, address)
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > most:
                break
    return bytes(content)


def _range(file_system: AbstractFileSystem, path: str, end: int) -> bytes:
    """The first `end` bytes: one request, where asking for the size first would be two."""
    try:
        return bytes(file_system.cat_file(path, start=0, end=end))
    except Exception as error:  # so broad because each file system raises its own package's errors
        if "range" in str(error).lower() and not file_system.size(path):  # S3 has no first byte of an empty object
            return b""
        raise


def _may_pass(error: BaseException) -> bool:
    """Whether it may be otherwise in a moment: too many requests, a failure of the server, a connection that broke."""
    error = _cause(error)
    status = _http_status(error)
    return not isinstance(error, _LASTING) if status is None else status == 429 or status >= 500


def _reason(error: BaseException) -> str:
    error = _cause(error)
    if (status := _http_status(error)) == 0:  # aiohttp's TooManyRedirects, which has no other words
        return f"redirected {len(getattr(error, 'history', ()))} times"
    if status is not None:  # the rest of its text is the address, which the row has
        return clean(f"HTTP {status} {getattr(error, 'message', '')}")
    told = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return clean(str(error))[:200] or told


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error if isinstance(error, UnreachableError) else error


def _http_status(error: BaseException) -> int | None:
    """Of aiohttp's ClientResponseError, which is not imported here: it is there only with fsspec[http]."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None
