"""An S3-compatible server on loopback: moto's, one request at a time, so that a condition holds until its write is done.

python tests/support/object_store.py    # serves until it is killed; the first line printed is its port
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def object_store(*, deaf: bool = False) -> Iterator[dict[str, str]]:
    """The environment in which ``s3://bucket/...`` lies on a server that lives as long as the block.

    Args:
        deaf: The server ignores conditions, as some do.
    """
    import boto3

    process = subprocess.Popen(
        [sys.executable, __file__, *(["deaf"] if deaf else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ""},
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().decode().strip()
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester-of-this-suite",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket="bucket")
        yield environment
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Serves on a free port of loopback."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)

    def without_conditions(environ: dict[str, Any], start_response: Any) -> Any:
        return application({key: environ[key] for key in environ if not key.startswith("HTTP_IF_")}, start_response)

    served = without_conditions if sys.argv[1:] == ["deaf"] else application
    server = make_server("127.0.0.1", 0, served, threaded=False)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
