"""Asking a server for a file, or for the rest of it; whatever goes wrong is said without the address's secrets.

Requests and urllib3 do the transport, with proxies and certificates from the environment. This module is imported only
where something is downloaded.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from types import TracebackType
from urllib.parse import urlsplit

import requests
import urllib3

from ..files.urls import DownloadProblem, shown
from .part_file import sendable

BACK_OFF = 0.5  # seconds before the second repeat; twice as many before every further one
REPEATS = 4  # of a request that is answered by one of the statuses below
BUSY = (429, 500, 502, 503, 504)  # statuses of a server that may answer better a little later
LONGEST_WAIT = 60.0  # seconds, even where the server asks for more
TIMEOUTS = (10.0, 60.0)  # seconds without a connection, and without a byte
CHUNK = 1 << 20  # bytes
ADVICE = {
    401: "It wants a login that this address does not hold.",
    403: "It refuses this file, or this network.",
    404: "The file is not there, or not any more: check the address.",
    407: "The proxy wants a login: HTTPS_PROXY=http://user:password@host:port.",
    410: "The file is not there any more: check the address.",
}


class Cut(Exception):
    """The connection could not be made, or broke: it may be tried again. The message is what the system said."""


@dataclass(frozen=True)
class Answer:
    """What a server sends. start: the byte it begins with; total: bytes of the whole file, None if the server does not
    say; validator: its name for this version of the file, "" if none."""

    start: int
    total: int | None
    validator: str
    chunks: Iterator[bytes]


class _Retry(urllib3.Retry):
    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Seconds that the server asks to wait; not as long as it likes."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT)


class Client:
    """Asks for one URL. A context manager: its connections are closed at the end.

    advice: what else to do, in its errors. ranges: whether the server has shown that it can send the rest of this file.
    """

    def __init__(self, url: str, advice: str) -> None:
        self.url, self.advice, self.ranges, self.session = url, advice, False, requests.Session()
        # Broken connections are tried again by the caller, who goes on from what has come.
        again = _Retry(
            total=None, connect=0, read=0, other=0, status=REPEATS,
            status_forcelist=BUSY, backoff_factor=BACK_OFF, raise_on_status=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=again))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    @contextmanager
    def ask(self, start: int, total: int | None, validator: str) -> Iterator[Answer]:
        """The file from byte `start` on, if the server still has the version named; else all of it.

        Raises Cut, also while the chunks are read, and DownloadProblem where trying again is no use.
        """
        response = self._get({"Range": f"bytes={start}-", "If-Range": validator} if start else {})
        if start and (response.status_code == 416 or not _continues(response, start, total, validator)):
            response.close()  # a server that does not keep to the rules: what it has now is asked for as a whole
            start, response = 0, self._get({})
        try:
            self._refuse(response, start)
            self.ranges = response.status_code == 206 or "bytes" in response.headers.get("Accept-Ranges", "").lower()
            chunks = _chunks(response)
            first = next(chunks, b"")
            if first[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                raise self._web_page()
            if response.status_code == 200:
                start, total, validator = 0, _number(response.headers.get("Content-Length")), _validator(response)
            yield Answer(start, total, validator, chain([first], chunks))
        finally:
            response.close()

    def _get(self, headers: dict[str, str]) -> requests.Response:
        plain = {"Accept-Encoding": "identity"}  # else the lengths are those of something compressed
        try:
            response = self.session.get(self.url, headers=plain | headers, stream=True, timeout=TIMEOUTS)
        except (ValueError, requests.TooManyRedirects) as problem:  # requests' own errors of addresses are ValueErrors
            raise DownloadProblem(
                f"{shown(self.url)} cannot be downloaded: it, or where it leads, is no http or https address "
                f"({type(problem).__name__}). Check it."
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as problem:
            said, certificate = _reason(problem)
            if not certificate:
                raise Cut(said) from None
            raise DownloadProblem(
                f"{shown(self.url)} cannot be trusted: {said}. Where a company's proxy signs for every server, "
                f"REQUESTS_CA_BUNDLE names its certificates. {self.advice}"
            ) from None
        schemes = [urlsplit(each.url).scheme for each in (*response.history, response)]
        if schemes != sorted(schemes):  # "http" < "https"
            response.close()
            raise DownloadProblem(
                f"{shown(self.url)} leads from https to http, where anybody may change it. {self.advice}"
            )
        return response

    def _refuse(self, response: requests.Response, start: int) -> None:
        """Raise DownloadProblem where this is not the file."""
        status = response.status_code
        if status != (206 if start and status == 206 else 200):
            known = status in HTTPStatus.__members__.values()
            phrase = f"{status} {HTTPStatus(status).phrase}" if known else str(status)
            if status in BUSY:
                advice = f"It was asked {REPEATS + 1} times: try again later."
            else:
                advice = ADVICE.get(status, "Check the address.")
            raise DownloadProblem(f"{shown(self.url)} answered {phrase}. {advice} {self.advice}")
        if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
            raise self._web_page()
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in ("", "identity"):
            raise DownloadProblem(
                f"{shown(self.url)} is sent compressed ({coding}), which was not asked for. {self.advice}"
            )

    def _web_page(self) -> DownloadProblem:
        return DownloadProblem(
            f"{shown(self.url)} answered with a web page instead of the file. Perhaps this network wants a login first, or "
            f"a proxy refuses: open the address in a browser, then try again. {self.advice}"
        )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # read1 gives what is there (urllib3 2.2); read would keep back, and lose, what came before a cut.
    raw: urllib3.response.HTTPResponse = response.raw
    try:
        while chunk := raw.read1(CHUNK, decode_content=False):
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as problem:
        raise Cut(_reason(problem)[0]) from None


def _continues(response: requests.Response, start: int, total: int | None, validator: str) -> bool:
    """Whether an answer to a request for a range can be used: not where it is the rest of something else."""
    if response.status_code != 206:
        return True
    has = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    same = _validator(response) in ("", validator)
    if not has or not same or int(has[1]) != start:
        return False
    return total is None or has[2] in ("*", str(total))


def _validator(response: requests.Response) -> str:
    """The strong ETag, else the date; a weak ETag does not promise the same bytes."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return validator if sendable(validator) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _reason(problem: BaseException) -> tuple[str, bool]:
    """What the system said of a failure, and whether it was about a certificate.

    Not the libraries' own texts: they quote the address, secrets and all.
    """
    links, link = [], problem
    while link not in links:
        links.append(link)
        inner = [getattr(link, "reason", None), *reversed(link.args), link.__cause__]
        link = next((each for each in inner if isinstance(each, BaseException)), link)
    through = "through the proxy: " if any(isinstance(each, urllib3.exceptions.ProxyError) for each in links) else ""
    for link in reversed(links):
        if isinstance(link, ssl.SSLCertVerificationError):
            return through + link.verify_message, True
        if isinstance(link, (socket.timeout, urllib3.exceptions.TimeoutError, requests.Timeout)):
            return f"{through}no answer in time", False
        if isinstance(link, OSError) and not isinstance(link, requests.RequestException):
            return through + (link.strerror or str(link).partition(":")[0]), False
    return f"{through}the connection was cut", False
