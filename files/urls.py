"""Addresses to download from: which text is one, how it is printed, whether downloads are allowed."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

from .errors import Problem

BY_HAND = "A file that you have can be given by its path."

# Keys of a query that only say who may fetch, and until when: of Amazon, Google, CloudFront, and others. In lower case.
_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|expires|signature|sig|policy|key-pair-id|token|access_token"
)
_OF_AZURE = {"se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"}  # with a sig
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


class DownloadProblem(Problem):
    """A file could not be downloaded. The message gives the cause and the remedy; nothing is at its place in the cache."""

    code = "download"


def offline() -> bool:
    """Whether POLYMAE_OFFLINE forbids to fetch anything: 1, true, yes or on."""
    return os.environ.get("POLYMAE_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def shown(url: str) -> str:
    """A URL to print or to keep: without the login and the query, which may be secrets."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    try:
        login = r"[^/]*@" if urlsplit(url).port != 0 else r".*@"
    except ValueError:  # no address at all, or a password with a slash
        login = r".*@"
    return re.sub(r"^((?:[a-z][a-z0-9+.-]*://)*)" + login, r"\1", plain, flags=re.IGNORECASE | re.DOTALL)


def scrubbed(text: str) -> str:
    """A text of somebody else's, with every address in it as `shown` has it."""
    return _ADDRESS.sub(lambda match: shown(match[0]), text)


def is_address(url: str) -> bool:
    """Whether a text is the address of something on the web."""
    try:
        parts = urlsplit(url)
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def same_file(url: str) -> str:
    """The common part of all addresses of one file: without login, fragment, and signature in the query.

    Any other query stays: `?id=1` and `?id=2` are two files.
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    azure = _OF_AZURE if "sig" in (name.lower() for name, _ in query) else set[str]()
    kept = [pair for pair in query if not _SIGNATURE.fullmatch(pair[0].lower()) and pair[0].lower() not in azure]
    same = len(kept) == len(query)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query=parts.query if same else urlencode(kept), fragment="").geturl()


def below(base: str, path: str) -> str:
    """The address of a path below another address, whose query, as a signature, stays."""
    parts = urlsplit(base)
    return parts._replace(path=parts.path.rstrip("/") + "/" + path, fragment="").geturl()
