"""S3-compatible storage: records are changed by conditional writes (If-None-Match, If-Match)."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from fsspec.asyn import sync
from typing_extensions import override

from tasks.core.errors import StoreError
from tasks.core.storage.backends import RemoteBackend

_PROBE = ".conditional"
_WRITE = "perennial-write"
_CONFLICTS = (409, 412)
"""HTTP: another conditional write is under way; the condition does not hold."""


class BucketBackend(RemoteBackend):
    """A bucket, or a part of one.

    Raises:
        StoreError: From the first conditional write: this storage ignores the conditions, so that runs would erase each
            other's records.
    """

    _probed: ClassVar[set[str]] = set()

    def __init__(self, root: str) -> None:
        # A kept listing would hide what other processes have written.
        super().__init__(root, use_listings_cache=False)

    @override
    def read_marked(self, name: str) -> tuple[bytes, Any] | None:
        async def read() -> tuple[bytes, str]:
            response = await self._fs._call_s3("get_object", **self._place(name))
            async with response["Body"] as body:
                return await body.read(), response["ETag"]

        try:
            found: tuple[bytes, str] = sync(self._fs.loop, read)
        except FileNotFoundError as error:
            if _answer(error)[1] == "NoSuchBucket":  # a mistyped name is no empty store
                raise
            return None
        return found

    @override
    def create(self, name: str, data: bytes) -> bool:
        self._probe()
        return self._put_if(name, data, IfNoneMatch="*")

    @override
    def swap(self, name: str, mark: Any, data: bytes) -> bool:
        self._probe()
        return self._put_if(name, data, IfMatch=mark)

    def _put_if(self, name: str, data: bytes, **condition: str) -> bool:
        """Whether the bytes were put under the condition.

        A lost answer makes the client send the write again, and the storage then refuses it because of the first time. So a
        write carries its own name, and a refusal counts only where the object carries another one.
        """
        write = secrets.token_hex(16)
        try:
            self._fs.call_s3("put_object", **self._place(name), Body=data, Metadata={_WRITE: write}, **condition)
        except OSError as error:
            status, code = _answer(error)
            if code == "NoSuchKey":  # If-Match on what is gone
                return False
            if status not in _CONFLICTS:
                raise
            try:
                found = self._fs.call_s3("head_object", **self._place(name))
            except FileNotFoundError:
                return False
            return bool(found.get("Metadata", {}).get(_WRITE) == write)
        return True

    def _probe(self) -> None:
        """Asks the storage, once for each process, whether it keeps to the conditions."""
        key = f"{self._fs.endpoint_url}|{self._root}"
        if key in self._probed:
            return
        self._put_if(_PROBE, b"{}", IfNoneMatch="*")
        refused = (
            not self._put_if(_PROBE, b"{}", IfNoneMatch="*"),
            not self._put_if(_PROBE, b"{}", IfMatch='"00000000000000000000000000000000"'),
        )
        if not all(refused):
            raise StoreError(
                self.uri,
                "storage that writes whether or not the condition holds",
                "S3-compatible storage that honours If-None-Match and If-Match on PutObject",
                "Set `store` to such storage (Amazon S3 is) or to a folder; here two runs could erase each other's records.",
            )
        self._probed.add(key)

    def _place(self, name: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(self._path(name))
        return {"Bucket": bucket, "Key": key}


def _answer(error: OSError) -> tuple[int | None, str | None]:
    """The HTTP status and the storage's own code behind an error of s3fs."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), response.get("Error", {}).get("Code")
