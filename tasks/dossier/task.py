"""The dossier as a Prefect task."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.monitoring import DriftReport, WindowCheck
from tasks.contracts.references import DatasetRef, FileRef
from tasks.contracts.run import Dossier, RunEvidence
from tasks.core.addresses import without_secrets
from tasks.core.errors import IntegrityError
from tasks.core.progress import report_progress
from tasks.core.quarantine import artifact_key
from tasks.core.stage import stage_task
from tasks.core.storage import Store, run_store
from tasks.dossier.config import DossierConfig
from tasks.tracking import open_run, run_page

logger = logging.getLogger(__name__)


@stage_task("write_dossier", cached=False, patient=True)
def write_dossier(evidence: RunEvidence, config: DossierConfig, latest: bool = True) -> Dossier:
    """The evidence of a run as one HTML page and its JSON: in the store, under the run's name, and in MLflow.

    Args:
        evidence: The run.
        config: Settings of the dossier.
        latest: Whether it becomes the model's latest; not when a person's answer is added to a dossier that there is.

    Raises:
        InputError: The file of business figures changed since the configuration was read, and is faulty.
        IntegrityError: A table that the evidence refers to is gone or altered, or the name is another run's.
        RegistryError: MLflow does not take the files.
    """
    from tasks.dossier.cards import installed_versions, public_settings
    from tasks.dossier.gathering import gather
    from tasks.dossier.kpis import read_kpis
    from tasks.dossier.page import compose_page
    from tasks.dossier.rendering import render_page
    from tasks.dossier.summary import folder_of, latest_of

    store = run_store()
    logger.info("dossier: writing the evidence of %s", evidence.run_name)
    evidence = evidence.model_copy(update={"settings": public_settings(evidence.settings)})
    if config.kpi_file is not None:
        evidence = evidence.model_copy(update={"business": read_kpis(Path(config.kpi_file))})
    with report_progress("write_dossier", 3, "files") as progress:
        gathered = gather(evidence, config.num_answers)
        written = dt.datetime.now(dt.UTC).strftime("%-d %B %Y, %H:%M UTC")
        html = render_page(compose_page(evidence, gathered, config, installed_versions(), written))
        record = evidence.model_dump_json(indent=2).encode()
        progress(1)
        folder = folder_of(evidence.run_name)
        _refuse_another_run(store, folder, evidence)
        files = {"html": store.write_bytes(html, ".html"), "record": store.write_bytes(record, ".json")}
        page_uri = store.write_named(f"{folder}/dossier.html", html)
        store.write_named(f"{folder}/dossier.json", record)
        if latest:
            store.write_named(latest_of(evidence.model_name), evidence.run_name.encode())
        progress(2)
        run_id = evidence.candidate.run_id if config.attach_to_mlflow else None
        if run_id:
            with open_run(evidence.model_name, evidence.run_name, {"perennial.dossier": page_uri}, run_id=run_id) as run:
                run.log_artifact_bytes("dossier/dossier.html", html)
                run.log_artifact_bytes("dossier/dossier.json", record)
        progress.finish(f"{len(html) // 1000} kB at {page_uri}")
    logger.info("dossier: %d kB at %s", len(html) // 1000, without_secrets(page_uri))
    if TaskRunContext.get() is not None:
        _publish(evidence, page_uri, run_page(run_id) if run_id else None)
    return Dossier(run_name=evidence.run_name, mlflow_run_id=run_id, **files)


@stage_task("write_check", cached=False)
def write_check(check: WindowCheck, drift: DriftReport, beside: DatasetRef) -> tuple[FileRef, FileRef]:
    """A check of production as one HTML page and its JSON, in the store; it becomes the latest once it is remembered.

    Args:
        check: The window with its verdict.
        drift: What its requests were compared with.
        beside: A data set of the store that they are written to.
    """
    from tasks.dossier.checking import compose_check
    from tasks.dossier.rendering import render_page

    store = run_store()
    with report_progress("write_check", 1, "pages") as progress:
        terms = store.read_table(drift.terms).to_pylist() if drift.terms else []
        html = render_page(compose_check(check, drift, terms))
        record = check.model_dump_json(indent=2).encode()
        page = store.write_bytes(html, ".html")
        progress.finish(f"{len(html) // 1000} kB")
    return page, store.write_bytes(record, ".json")


def _refuse_another_run(store: Store, folder: str, evidence: RunEvidence) -> None:
    """Keeps the evidence that lies there: only the run that wrote it may write it again.

    Raises:
        IntegrityError: It is another run's.
    """
    own = (evidence.flow_run_id or "").encode()
    if store.keep_named(f"{folder}/flow_run_id.txt", own) != own:
        raise IntegrityError(
            f"{store.uri}/{folder}",
            "the dossier of another run of this name",
            f"none, or that of flow run {evidence.flow_run_id}",
            "Nothing was written. Give the run another name, or move the folder away.",
        )


def _publish(evidence: RunEvidence, page_uri: str, mlflow_url: str | None) -> None:
    """The verdict and the way to the page, as artifacts of the Prefect run."""
    from tasks.dossier.verdict import verdict_of

    verdict = verdict_of(evidence)
    lines = [f"## {verdict.label}", "", verdict.sentence, "", *(f"- {reason}" for reason in evidence.decision.reasons)]
    create_markdown_artifact("\n".join(lines), key=artifact_key("verdict", evidence.model_name), description=verdict.label)
    key = artifact_key("dossier", evidence.model_name)
    create_link_artifact(mlflow_url or page_uri, link_text=f"Dossier of {evidence.run_name}", key=key)
