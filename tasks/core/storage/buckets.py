"""S3-compatible storage, with conditional writes (If-None-Match, If-Match) for records."""

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
"""HTTP: a concurrent conditional write; a failed condition."""


class BucketBackend(RemoteBackend):
    """A bucket, or a part of one.

    Raises:
        StoreError: At the first conditional write: this storage ignores conditions, so that runs would overwrite each
            other's records.
    """

    _probed: ClassVar[set[str]] = set()

    def __init__(self, root: str) -> None:
        # A cached listing would hide the writes of other processes.
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
            if _answer(error)[1] == "NoSuchBucket":  # a mistyped name, not an empty store
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
        """Whether the bytes were written under the condition.

        After a lost response the client repeats the write, and the storage rejects it because of the first one. So each
        write has an id, and a rejection counts only if the object has another id.
        """
        write = secrets.token_hex(16)
        try:
            self._fs.call_s3("put_object", **self._place(name), Body=data, Metadata={_WRITE: write}, **condition)
        except OSError as error:
            status, code = _answer(error)
            if code == "NoSuchKey":  # If-Match on a removed object
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
        """Tests, once per process, whether the storage honours the conditions."""
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
                "storage that ignores the condition of a write",
                "S3-compatible storage that honours If-None-Match and If-Match on PutObject",
                "Set `store` to such storage, like Amazon S3, or to a folder: runs would overwrite each other's records.",
            )
        self._probed.add(key)

    def _place(self, name: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(self._path(name))
        return {"Bucket": bucket, "Key": key}


def _answer(error: OSError) -> tuple[int | None, str | None]:
    """The HTTP status and the storage's own code of an error of s3fs."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), response.get("Error", {}).get("Code")
