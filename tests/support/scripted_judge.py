"""A judge for tests: OpenAI's chat completions over real HTTP, answered by a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any]], str]


class ScriptedJudge:
    """An endpoint that answers as a script says and remembers what it was asked."""

    def __init__(self) -> None:
        self.script: Script = lambda content: "TIE"
        self.failures: list[int] = []
        """Statuses of the next answers, before the script is heard."""
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        judge, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    judge.asked.append(body)
                    judge.keys.add(self.headers["Authorization"])
                    status = judge.failures.pop(0) if judge.failures else 200
                words = judge.script(json.loads(body["messages"][1]["content"])) if status == 200 else ""
                answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": words}}]}).encode()
                self.send_response(status if self.path == "/v1/chat/completions" else 404)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def scripted_judge() -> Iterator[ScriptedJudge]:
    """A judge that answers at its ``url`` within the block."""
    judge = ScriptedJudge()
    thread = threading.Thread(target=judge.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield judge
    finally:
        judge.server.shutdown()
        thread.join()
        judge.server.server_close()
