"""The dossier, and the page of a check of production, as Prefect tasks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.monitoring import DriftReport, WindowCheck
from tasks.contracts.references import DatasetRef, FileRef
from tasks.contracts.run import Dossier, RunEvidence
from tasks.core.addresses import without_secrets
from tasks.core.errors import IntegrityError
from tasks.core.pages import artifact_key, markdown_text
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, run_store
from tasks.dossier.config import DossierConfig
from tasks.dossier.kpis import read_kpis
from tasks.tracking import open_run, run_page


@stage(cached=False, patient=True, unit="files")
def write_dossier(evidence: RunEvidence, config: DossierConfig, latest: bool = True) -> Dossier:
    """The evidence of a run as one HTML page and its JSON: in the store, under the run's name, and in MLflow.

    Args:
        evidence: The run.
        config: Settings of the dossier.
        latest: Whether it becomes the model's latest; false where a person's answer is added to an earlier dossier.

    Raises:
        InputError: The file of business figures changed since the configuration was read, and is invalid.
        IntegrityError: A table that the evidence refers to is gone or altered, or the name is another run's.
        RegistryError: MLflow does not take the files.
    """
    from tasks.dossier.provenance import public_settings

    store, progress = run_store(), stage_progress()
    evidence = evidence.model_copy(update={"settings": public_settings(evidence.settings)})
    if config.kpi_file is not None:
        evidence = evidence.model_copy(update={"business": read_kpis(Path(config.kpi_file))})
    html, record = _render(evidence, config), evidence.model_dump_json(indent=2).encode()
    progress(1, 3)
    page_uri = _write_named(store, evidence, html, record, latest=latest)
    progress(2, 3)
    run_id = evidence.candidate.run_id if config.attach_to_mlflow else None
    if run_id:
        with open_run(evidence.model_name, evidence.run_name, {"perennial.dossier": page_uri}, run_id=run_id) as run:
            run.log_artifact_bytes("dossier/dossier.html", html)
            run.log_artifact_bytes("dossier/dossier.json", record)
    if TaskRunContext.get() is not None:
        _publish(evidence, page_uri, run_page(run_id) if run_id else None)
    progress.summarize(f"{len(html) // 1000} kB at {without_secrets(page_uri)}")
    return Dossier(
        run_name=evidence.run_name,
        mlflow_run_id=run_id,
        html=store.write_bytes(html, ".html"),
        record=store.write_bytes(record, ".json"),
    )


@stage(cached=False, unit="pages")
def write_check(check: WindowCheck, drift: DriftReport, beside: DatasetRef) -> tuple[FileRef, FileRef]:
    """A check of production as one HTML page and its JSON, in the store; `remember_check` makes it the latest.

    Args:
        check: The window with its verdict.
        drift: What its requests were compared with.
        beside: A data set of the store that they are written to.
    """
    from tasks.dossier.monitoring_page import compose_check
    from tasks.dossier.rendering import render_page

    store = run_store()
    terms = store.read_table(drift.terms).to_pylist() if drift.terms else []
    html = render_page(compose_check(check, drift, terms))
    stage_progress().summarize(f"{len(html) // 1000} kB")
    return store.write_bytes(html, ".html"), store.write_bytes(check.model_dump_json(indent=2).encode(), ".json")


def _render(evidence: RunEvidence, config: DossierConfig) -> bytes:
    from tasks.dossier.page import compose_page
    from tasks.dossier.provenance import installed_versions
    from tasks.dossier.rendering import render_page
    from tasks.dossier.report_data import read_report_data

    data = read_report_data(evidence, config.num_answers)
    written = dt.datetime.now(dt.UTC).strftime("%-d %B %Y, %H:%M UTC")
    return render_page(compose_page(evidence, data, config, installed_versions(), written))


def _write_named(store: Store, evidence: RunEvidence, html: bytes, record: bytes, *, latest: bool) -> str:
    """Writes the readable copies under the run's name; the page's address.

    Raises:
        IntegrityError: The dossier of another run has this name; only the run that wrote a dossier may write it again.
    """
    from tasks.dossier.summary import folder_of, latest_of

    folder, own = folder_of(evidence.run_name), (evidence.flow_run_id or "").encode()
    if store.keep_named(f"{folder}/flow_run_id.txt", own) != own:
        raise IntegrityError(
            f"{store.uri}/{folder}",
            "the dossier of another run of this name",
            f"none, or that of flow run {evidence.flow_run_id}",
            "Nothing was written. Give the run another name, or move the folder away.",
        )
    page_uri = store.write_named(f"{folder}/dossier.html", html)
    store.write_named(f"{folder}/dossier.json", record)
    if latest:
        store.write_named(latest_of(evidence.model_name), evidence.run_name.encode())
    return page_uri


def _publish(evidence: RunEvidence, page_uri: str, mlflow_url: str | None) -> None:
    """The verdict and a link to the page, as artifacts of the Prefect run."""
    from tasks.dossier.verdict import verdict_of

    verdict = verdict_of(evidence)
    lines = [
        f"## {verdict.label}",
        "",
        verdict.sentence,
        "",
        *(f"- {markdown_text(reason)}" for reason in evidence.decision.reasons),
    ]
    create_markdown_artifact("\n".join(lines), key=artifact_key("verdict", evidence.model_name), description=verdict.label)
    key = artifact_key("dossier", evidence.model_name)
    create_link_artifact(mlflow_url or page_uri, link_text=f"Dossier of {evidence.run_name}", key=key)
