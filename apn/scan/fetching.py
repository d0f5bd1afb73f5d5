"""Files of other machines: asked for again where trying again may help, and what went wrong in plain words."""

import ftplib
import time
from collections.abc import Callable
from typing import TypeVar

from apn.image import ImageError
from apn.provenance import clean
from apn.scan.files import UnreachableError

Found = TypeVar("Found")

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
        except (FileNotFoundError, PermissionError, MemoryError):
            raise
        except Exception as error:  # so broad because each file system raises its own package's errors
            pause = next(pauses, None) if _may_pass(error) else None
            if pause is None:
                raise ImageError(f"cannot be fetched ({_reason(error)})") from error
        time.sleep(pause)


def _may_pass(error: BaseException) -> bool:
    """Whether it may be otherwise in a moment: too many requests, a failure of the server, a connection that broke."""
    error = _cause(error)
    status = _http_status(error)
    return not isinstance(error, _LASTING) if status is None else status == 429 or status >= 500


def _reason(error: BaseException) -> str:
    error = _cause(error)
    if (status := _http_status(error)) is not None:  # the rest of its text is the address, which the row has
        return clean(f"HTTP {status} {getattr(error, 'message', '')}")
    told = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return clean(str(error))[:200] or told


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error if isinstance(error, UnreachableError) else error


def _http_status(error: BaseException) -> int | None:
    """Of aiohttp's ClientResponseError, which is not imported here: it is there only with fsspec[http]."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None
