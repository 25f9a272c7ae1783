"""Removes secrets from addresses for errors, logs, tags, dossiers and terminal output.

An address of a server, a database or a bucket may contain a password, as in ``postgresql://name:password@host/db`` or
``https://host/file?signature=...``. The remaining address still identifies the location, and links still work.
"""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s'\"<>`]+)")
_PORT = re.compile(r"[^:]*:\d*")
_VALUE = re.compile(r"([?&#;][^=&#;\s'\"]*=)[^&#;\s'\"]*")
_SETTING = re.compile(
    r"\b((?:[a-z_-]*(?:password|passwd|pwd|secret|token|api_?key|access_?key|credential)s?)\s*=\s*)[^\s&;,'\"]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text without users, passwords and query values in addresses, and without the values of ``password=``.

    Example:
        >>> without_secrets("cannot open postgresql://mlflow:word@db:5432/mlflow?sslkey=abc")
        'cannot open postgresql://db:5432/mlflow?sslkey=***'
    """
    return _SETTING.sub(r"\1***", _ADDRESS.sub(_shown, text))


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an error's message, cut to ``most`` characters, without secrets."""
    return without_secrets(str(error).strip().split("\n", 1)[0])[:most]


def _shown(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority = place.split("/", 1)[0]
    # A password may contain a slash, as keys of buckets do; `host:8080/name@tag` contains no password.
    is_whole = "@" in authority or ":" not in authority or (scheme in ("http", "https") and _PORT.fullmatch(authority))
    end = authority.rfind("@") if is_whole else place.rfind("@")
    shown = _VALUE.sub(r"\1***", rest[end + 1 :])
    return f"{scheme}://{shown}"
