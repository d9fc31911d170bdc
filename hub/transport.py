"""Asking a server for a file, or for the rest of it; every error is free of the address's secrets.

requests does the transport, with redirects, proxies and certificates from the environment; it neither resumes a file nor
tells a page of a login from it. This module is imported only for a download.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import requests
import urllib3

from ..files.urls import DownloadProblem, shown
from .part_file import sendable

BUSY = (429, 500, 502, 503, 504)  # statuses of a server that may answer better a little later
LONGEST_WAIT = 60  # seconds, even if the server asks for more
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
    """The connection could not be made, or broke, or the server is busy: try again. The message is the system's."""

    def __init__(self, message: str, busy: bool = False, wait: int = 0) -> None:
        super().__init__(message)
        self.busy = busy
        self.wait = wait  # seconds that a busy server asks for


@dataclass(frozen=True)
class Answer:
    """The bytes that a server sends."""

    start: int  # the first one's place in the file
    total: int | None  # bytes of the whole file; None if the server does not say
    validator: str  # the server's name for this version of the file; "" if none
    chunks: Iterator[bytes]


class Client:
    """Asks for one URL. A context manager: its connections are closed at the end. advice: the end of every error."""

    def __init__(self, url: str, advice: str) -> None:
        self.url, self.advice, self.session = url, advice, requests.Session()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.session.close()

    @contextmanager
    def ask(self, start: int, total: int | None, validator: str) -> Iterator[Answer]:
        """The file from byte `start` on, if the server still has the version named; else all of it.

        Raises Cut, also while the chunks are read, and DownloadProblem if trying again is no use.
        """
        response = self._get({"Range": f"bytes={start}-", "If-Range": validator} if start else {})
        if start and (response.status_code == 416 or not _continues(response, start, total, validator)):
            response.close()  # a server that does not keep to the rules: it is asked for the whole file
            start, response = 0, self._get({})
        with response:
            self._refuse(response, start)
            if response.status_code == 200:
                start, total, validator = 0, _number(response.headers.get("Content-Length")), _validator(response)
            yield Answer(start, total, validator, _chunks(response))

    def _get(self, headers: dict[str, str]) -> requests.Response:
        plain = {"Accept-Encoding": "identity"}  # else the lengths are those of compressed bytes
        try:
            response = self.session.get(self.url, headers=plain | headers, stream=True, timeout=TIMEOUTS)
        except (ValueError, requests.TooManyRedirects) as problem:  # requests' own errors of addresses are ValueErrors
            raise DownloadProblem(
                f"{shown(self.url)} cannot be downloaded: it, or where it leads, is no http or https address "
                f"({type(problem).__name__}). Check it."
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as problem:
            reason, certificate = _reason(problem)
            if not certificate:
                raise Cut(reason) from None
            raise DownloadProblem(
                f"{shown(self.url)} cannot be trusted: {reason}. If a company's proxy signs for every server, "
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
        """Raise Cut if the server is busy, DownloadProblem if this is not the file."""
        status = response.status_code
        phrase = f"{status} {HTTPStatus(status).phrase}" if status in HTTPStatus.__members__.values() else str(status)
        if status in BUSY:
            wait = _number(response.headers.get("Retry-After")) or 0
            raise Cut(f"it answered {phrase}", True, min(wait, LONGEST_WAIT))
        if status != (206 if start and status == 206 else 200):
            advice = ADVICE.get(status, "Check the address.")
            raise DownloadProblem(f"{shown(self.url)} answered {phrase}. {advice} {self.advice}")
        # Before a part that has come is given up for it. Any other wrong file is seen when it is opened.
        if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
            raise DownloadProblem(
                f"{shown(self.url)} answered with a web page instead of the file. Perhaps this network wants a login first, or "
                f"a proxy refuses: open the address in a browser, then try again. {self.advice}"
            )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # read1 gives the bytes that are there (urllib3 2.2); read would keep back, and lose, those before a cut.
    raw: urllib3.response.HTTPResponse = response.raw
    try:
        while chunk := raw.read1(CHUNK, decode_content=False):
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as problem:
        raise Cut(_reason(problem)[0]) from None


def _continues(response: requests.Response, start: int, total: int | None, validator: str) -> bool:
    """Whether an answer to a request for a range can be used: not if it is the rest of another file."""
    if response.status_code != 206:
        return True
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not sent or int(sent[1]) != start or _validator(response) not in ("", validator):
        return False
    return total is None or sent[2] in ("*", str(total))


def _validator(response: requests.Response) -> str:
    """The strong ETag, else the date; a weak ETag does not promise the same bytes."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return validator if sendable(validator) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _reason(problem: BaseException) -> tuple[str, bool]:
    """The system's words for a failure, and whether it is about a certificate.

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
