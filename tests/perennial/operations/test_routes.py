"""Routers' configurations hold the shares of the registry, and nothing that a router reads as something else."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import yaml
from mlflow.gateway.config import TrafficRouteConfig
from scipy.stats import binom

from perennial.operations.routes import Kind, render_route, shares_of
from tasks.core.errors import ConfigError
from tasks.registry.config import RolloutConfig
from tasks.registry.live import Traffic
from tasks.registry.rollout import abort, start

NOW = "2026-11-01T02:00:00+00:00"


def traffic(share: int | None, state: str = "baking") -> Traffic:
    """Champion 7 with version 8 beside it at a share; None without a rollout."""
    if share is None:
        return Traffic("7", "7", None)
    rollout = start(RolloutConfig(), "7", NOW).model_copy(update={"share": share})
    return Traffic("7", "8", abort(rollout, "rude replies", NOW) if state == "aborted" else rollout)


def shares_in(kind: str, text: str) -> dict[str, int]:
    """The shares by backend as the router reads them."""
    if kind == "nginx":
        split, names = (
            dict(re.findall(r"^ +(\S+) +(\S+);$", block, re.MULTILINE)) for block in re.findall(r"\{([^}]*)\}", text)
        )
        parts = {version: int(share.rstrip("%")) for share, version in split.items() if share != "*"}
        return {names[version]: parts.get(version, 100 - sum(parts.values())) for version in split.values()}
    document: Any = yaml.safe_load(text)
    if kind == "mlflow":
        route = TrafficRouteConfig.model_validate(document["routes"][0])
        return {one.name: one.traffic_percentage for one in route.destinations}
    (rule,) = document["spec"]["rules"]
    if kind == "gateway":
        return {one["name"]: one["weight"] for one in rule["backendRefs"]}
    return {one["modelRewrite"]: one["weight"] for one in rule["targets"]}


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize(
    ("now", "shares"),
    [
        (traffic(None), {"7": 100}),
        (traffic(0), {"7": 100}),
        (traffic(5), {"7": 95, "8": 5}),
        (traffic(50), {"7": 50, "8": 50}),
        (traffic(75), {"7": 25, "8": 75}),
        (traffic(25, "aborted"), {"7": 100}),
    ],
)
def test_every_router_gets_the_shares_of_the_registry(kind: Kind, now: Traffic, shares: dict[str, int]) -> None:
    assert shares_of(now) == shares
    text = render_route(kind, "Support.Desk", now)
    assert shares_in(kind, text) == {f"support-desk-v{version}": share for version, share in shares.items()}
    assert "0%" not in re.findall(r"\b\d+%", text), "nginx rejects a share of 0"


def test_an_http_route_names_gateway_path_and_port() -> None:
    found = yaml.safe_load(render_route("gateway", "desk", traffic(5), port=9000, backend="vllm-{version}"))
    assert (found["apiVersion"], found["kind"]) == ("gateway.networking.k8s.io/v1", "HTTPRoute")
    assert found["metadata"]["name"] == "vllm"
    assert {one["name"]: one["port"] for one in found["spec"]["rules"][0]["backendRefs"]} == {"vllm-7": 9000, "vllm-8": 9000}


def test_a_user_stays_at_one_version_where_a_cookie_is_hashed() -> None:
    assert 'split_clients "$cookie_session" ' in render_route("nginx", "desk", traffic(5), key="$cookie_session")


@pytest.mark.parametrize(
    "backend", ["desk", "{version}", "Desk-v{version}", "desk_v{version}", "d" * 70 + "{version}", "a b{version}"]
)
def test_a_backend_that_no_router_takes(backend: str) -> None:
    with pytest.raises(ConfigError, match="--backend"):
        render_route("gateway", "desk", traffic(5), backend=backend)


@pytest.mark.parametrize("key", ["request_id", "$a; include /etc/passwd", '$a" x', "$", "${request_id}"])
def test_a_key_is_one_variable(key: str) -> None:
    with pytest.raises(ConfigError, match="--key"):
        render_route("nginx", "desk", traffic(5), key=key)


# ------------------------------------------------------------------------------------------------------------- real nginx

SERVER = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream desk-v7 {{ server unix:{folder}/v7.sock; }}
    upstream desk-v8 {{ server unix:{folder}/v8.sock; }}
    server {{ listen unix:{folder}/v7.sock; return 200 7; }}
    server {{ listen unix:{folder}/v8.sock; return 200 8; }}
    include {folder}/route.conf;
    server {{
        listen unix:{folder}/front.sock;
        location / {{
            proxy_pass http://$perennial_backend;
            add_header X-Model-Version $perennial_version always;
        }}
    }}
}}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("share", [None, 5, 25])
def test_nginx_splits_requests_as_rendered(share: int | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="nginx-"))  # a socket's path has at most 107 characters
    folder.chmod(0o755)  # its worker may be another account
    (folder / "route.conf").write_text(render_route("nginx", "desk", traffic(share)))
    (folder / "nginx.conf").write_text(SERVER.format(folder=folder))
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    server = subprocess.Popen(command)
    try:
        transport = httpx.HTTPTransport(uds=str(folder / "front.sock"), retries=20)
        with httpx.Client(transport=transport, base_url="http://front") as client:
            answers = [client.get("/v1/models") for _ in range(2_000)]
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)
    assert all(answer.text == answer.headers["X-Model-Version"] for answer in answers), "one share and one truth"
    part, expected = sum(answer.text == "8" for answer in answers), (share or 0) / 100
    low, high = binom.interval(0.9999, 2_000, expected) if expected else (0, 0)
    assert low <= part <= high
