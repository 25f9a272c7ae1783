"""`perennial rollout render`: the shares of traffic as a router's configuration, which is rendered again after each step."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import yaml

from tasks.core.errors import ConfigError
from tasks.registry import live

Kind = Literal["nginx", "gateway", "llm-d", "mlflow"]
"""nginx's split_clients, Gateway API's HTTPRoute, llm-d's InferenceModelRewrite, MLflow's gateway."""

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"\$[a-z0-9_]{1,60}")


def render_route(
    kind: Kind, name: str, traffic: live.Traffic, *, backend: str | None = None, port: int = 8000, key: str = "$request_id"
) -> str:
    """The configuration of a router that gives each version its share; a version without traffic does not appear.

    Args:
        kind: Which router.
        name: The registered model.
        traffic: Which versions serve.
        backend: Name of a version's backend, with ``{version}`` in it; None: the model's name, ``-v`` and the version.
        port: Port of the backends, for ``gateway``.
        key: For ``nginx``, the variable that is hashed: ``$request_id`` splits requests, a cookie's variable keeps a user at
            one version.

    Raises:
        ConfigError: A backend's name or the key is not valid there.
    """
    template = backend or f"{re.sub(r'[^a-z0-9-]', '-', name.lower())}-v{{version}}"
    shares = shares_of(traffic)
    backends = {version: template.replace("{version}", version) for version in shares}
    for found in backends.values():
        if not _LABEL.fullmatch(found) or len(set(backends.values())) < len(backends):
            expected = "a name with {version} of at most 63 lower-case letters, digits and hyphens that begins with a letter"
            raise ConfigError("--backend", template, expected, "Name the backends of the versions.")
    if not _KEY.fullmatch(key):
        raise ConfigError("--key", key, "one variable of nginx, such as $request_id or $cookie_session", "Name one.")
    if kind == "nginx":
        return _nginx(name, shares, backends, key)
    weights = [(backends[version], share) for version, share in shares.items()]
    route = template.replace("-v{version}", "").replace("{version}", "").strip("-") or "model"
    document = _DOCUMENTS[kind](route, weights, port)
    return f"# {_comment(name, shares)}\n{yaml.safe_dump(document, sort_keys=False)}"


def shares_of(traffic: live.Traffic) -> dict[str, int]:
    """The versions with traffic and their shares in per cent, which add up to 100."""
    rollout = traffic.rollout
    share = rollout.share if rollout is not None and rollout.state == "baking" else 0
    shares = {traffic.champion: 100 - share, traffic.version: share} if share else {traffic.champion: 100}
    return {version: part for version, part in shares.items() if part}


def _comment(name: str, shares: dict[str, int]) -> str:
    return f"{name}: " + ", ".join(f"version {version} {share} %" for version, share in shares.items())


def _nginx(name: str, shares: dict[str, int], backends: dict[str, str], key: str) -> str:
    """For the ``http`` block, beside an ``upstream`` for each backend. nginx rejects a share of 0."""
    *others, last = sorted(shares, key=lambda version: shares[version])
    lines = [f"{f'{shares[version]}%':<6}{version};" for version in others] + [f"{'*':<6}{last};"]
    split = "\n".join(f"    {line}" for line in lines)
    names = "\n".join(f"    {version:<6}{backends[version]};" for version in shares)
    return (
        f"# {_comment(name, shares)}\n"
        f'split_clients "{key}" $perennial_version {{\n{split}\n}}\n'
        f"map $perennial_version $perennial_backend {{\n{names}\n}}\n"
        "# In the location: proxy_pass http://$perennial_backend; add_header X-Model-Version $perennial_version always;\n"
    )


def _gateway(name: str, weights: list[tuple[str, int]], port: int) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "inference-gateway"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1/"}}],
                    "backendRefs": [{"name": backend, "port": port, "weight": weight} for backend, weight in weights],
                }
            ],
        },
    }


def _llm_d(name: str, weights: list[tuple[str, int]], port: int) -> dict[str, Any]:
    """Both adapters are served by one pool, under the names of their backends."""
    return {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": name},
        "spec": {
            "poolRef": {"group": "inference.networking.k8s.io", "name": name},
            "rules": [
                {
                    "matches": [{"model": {"type": "Exact", "value": name}}],
                    "targets": [{"modelRewrite": backend, "weight": weight} for backend, weight in weights],
                }
            ],
        },
    }


def _mlflow(name: str, weights: list[tuple[str, int]], port: int) -> dict[str, Any]:
    """The part ``routes`` of a gateway's file; its ``endpoints`` have the names of the backends."""
    destinations = [{"name": backend, "traffic_percentage": weight} for backend, weight in weights]
    return {"routes": [{"name": name, "task_type": "llm/v1/chat", "destinations": destinations}]}


_DOCUMENTS: dict[str, Callable[[str, list[tuple[str, int]], int], dict[str, Any]]] = {
    "gateway": _gateway,
    "llm-d": _llm_d,
    "mlflow": _mlflow,
}
