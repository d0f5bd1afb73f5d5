"""Uploads kept in memory: multipart bodies parsed as they stream in, every limit checked before the byte is kept.

Starlette's own parser would spool files above 1 MB to disk and count bytes only of fields, hence this one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from apn.server.settings import ServerSettings

FIELD = "files"


class Upload(NamedTuple):
    """One file of a request: the name its sender gave it, and its bytes."""

    name: str
    content: bytes


def busy(settings: ServerSettings, reason: str) -> HTTPException:
    """A 503 that says when to try again."""
    return HTTPException(503, reason, {"Retry-After": str(settings.retry_after_s)})


class UploadReader:
    """Reads requests into memory; `held` counts the bytes of all requests together, on the event loop only."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.held = 0

    @asynccontextmanager
    async def read(self, request: Request, max_files: int | None = None) -> AsyncIterator[list[Upload]]:
        """The files of a request, at most `max_files` or else as the settings have it; forgotten after the block.

        Raises HTTPException: 400 broken multipart or no file, 408 too slow, 413 too large, 415 not multipart,
        503 too many bytes held. A refusal comes as soon as the limit is passed, not after the rest of the body.
        """
        settings, taken = self.settings, 0
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > settings.max_request_bytes:
            raise _request_too_large(settings, declared)
        form = _Form(request.headers.get("content-type", ""), settings, max_files or settings.max_files)
        try:
            try:
                async with asyncio.timeout(settings.timeout_s):
                    async for chunk in request.stream():
                        taken += len(chunk)
                        self.held += len(chunk)
                        if taken > settings.max_request_bytes:  # a chunked body has no Content-Length to check
                            raise _request_too_large(settings, "more")
                        if self.held > settings.max_held_bytes:
                            raise busy(settings, "the server holds as many uploads as it may; try again")
                        form.write(chunk)
            except TimeoutError as error:
                raise HTTPException(408, f"the request did not arrive within {settings.timeout_s:g} s") from error
            yield form.finish()
        finally:
            form.forget()
            self.held -= taken


def _request_too_large(settings: ServerSettings, found: str) -> HTTPException:
    return HTTPException(413, f"expected a request of at most {settings.max_request_bytes} bytes, found {found}")


class _Form:
    """A multipart/form-data body of file parts named `files`, fed chunk by chunk."""

    def __init__(self, content_type: str, settings: ServerSettings, max_files: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise HTTPException(415, f"expected Content-Type multipart/form-data, found {content_type or 'none'!r}")
        self.settings, self.max_files = settings, max_files
        self.uploads: list[Upload] = []
        self.ended = False
        self.name, self.content = "", bytearray()  # of the part being read
        self.header, self.value = bytearray(), bytearray()
        self.disposition = b""
        try:
            self.parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": lambda data, start, end: self.header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise HTTPException(400, f"broken multipart boundary: {error}") from error
        if not options.get(b"boundary"):
            raise HTTPException(400, "expected a boundary in Content-Type multipart/form-data, found none")

    def write(self, chunk: bytes) -> None:
        try:
            self.parser.write(chunk)
        except FormParserError as error:
            raise HTTPException(400, f"broken multipart body: {error}") from error

    def finish(self) -> list[Upload]:
        if not self.ended:
            raise HTTPException(400, "broken multipart body: it ends before its closing boundary")
        if not self.uploads:
            raise HTTPException(400, f"expected at least one file part named {FIELD!r}, found none")
        return self.uploads

    def forget(self) -> None:
        """Let go of every file: form and parser refer to each other, and so live on until Python looks for cycles."""
        self.uploads.clear()
        self.content = bytearray()

    def _part_begin(self) -> None:
        self.name, self.content, self.disposition = "", bytearray(), b""

    def _header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header, self.value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise HTTPException(400, f"expected file parts named {FIELD!r}, found {field!r}")
        if b"filename" not in options:  # the parser passes over filename*=, which RFC 7578 forbids in section 4.2
            found = "one without filename= (RFC 7578 knows no filename*=)"
            raise HTTPException(400, f"expected file parts named {FIELD!r}, found {found}")
        if len(self.uploads) == self.max_files:
            files = "1 file" if self.max_files == 1 else f"{self.max_files} files"
            raise HTTPException(413, f"expected at most {files} a request, found more")
        self.name = options[b"filename"].decode("utf-8", "replace") or f"image {len(self.uploads) + 1}"

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if len(self.content) + end - start > self.settings.max_upload_bytes:
            position, limit = len(self.uploads) + 1, self.settings.max_upload_bytes
            raise HTTPException(413, f"expected files of at most {limit} bytes, found more in file {position}")
        self.content += data[start:end]

    def _part_end(self) -> None:
        self.uploads.append(Upload(self.name, bytes(self.content)))
        self.content = bytearray()

    def _end(self) -> None:
        self.ended = True
