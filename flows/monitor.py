"""Checks a window of production: drift of the requests from the training rows, and signals of reply quality."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow, runtime

from flows.scrub import scrub_dataset
from flows.support.alert_runs import raise_alerts
from flows.support.config import MonitoringConfig, RetrainConfig, sent_to_prefect
from flows.support.run_names import scheduled_run_name
from tasks import confidential, dossier, ingest, monitoring, registry, validation
from tasks.contracts.monitoring import CheckOutcome, LogWindow
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ConfigError
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store
from tasks.core.timestamps import ensure_utc


@flow(name="check-production", flow_run_name=scheduled_run_name("check"), persist_result=True, result_serializer=CONTRACTS)
def check_production(config: RetrainConfig, until: datetime | None = None) -> CheckOutcome:
    """The verdict on one window; if the alert rule applies, an alert that starts the deployment ``retrain-on-alert``.

    Args:
        config: The configuration of the retrain, with its section ``monitoring``.
        until: End of the window; None takes the last full hour before the scheduled time of the run, less the delay.
    """
    config = sent_to_prefect(config)
    settings, store = monitoring_of(config), open_store(config.store).uri
    start, end = window_of(settings, until or runtime.flow_run.scheduled_start_time)

    # 1. Read the figures of every request, and the texts of a sample. The texts go through the stages of training rows.
    window = ingest.take_log(settings.log, start, end, store)
    requests = _scrubbed(window, config) if window.dataset.num_rows else None

    # 2. Evaluate against the limits, and against the rows that the champion was trained on.
    champion_rows = registry.find_champion_rows(config.registry, store)
    drift = monitoring.measure_drift(requests, champion_rows, settings.drift)
    check = monitoring.judge_window(config.name, window, drift, settings.signals, settings.alert)

    # 3. Report: a page, preference pairs to confirm, a retrain if the alert rule applies. The history is written last.
    pairs = monitoring.collect_pairs(requests, settings.drift.near_duplicate_threshold) if requests else None
    page, record = dossier.write_check(check, drift, window.lines)
    runs, notes = raise_alerts(check, settings.alert.deployment)
    outcome = CheckOutcome(
        check=check,
        page=page,
        record=record,
        pairs=pairs[0] if pairs else None,
        num_pairs=pairs[1] if pairs else 0,
        runs=runs,
        notes=(*window.notes, *notes),
    )
    monitoring.remember_check(outcome, settings.alert)
    return outcome


def window_of(settings: MonitoringConfig, until: datetime) -> tuple[datetime, datetime]:
    """Start and end of the window of a check that is scheduled for ``until``, whenever it runs."""
    # Prefect's times are Pendulum's; a subtraction drops a zone that is not Pendulum's.
    scheduled = datetime.fromtimestamp(ensure_utc(until).timestamp(), UTC)
    end = (scheduled - timedelta(minutes=settings.delay_minutes)).replace(minute=0, second=0, microsecond=0)
    return end - timedelta(hours=settings.window_hours), end


def _scrubbed(window: LogWindow, config: RetrainConfig) -> DatasetRef | None:
    """The window's conversations without personal data. The limits that stop a training do not stop a check."""
    stages = config.prepare
    lenient = {"max_quarantine_share": 1.0, "min_rows": 0, "min_language_share": 0.0, "fail_on_divergence": False}
    validated = validation.validate(window.dataset, stages.validation.model_copy(update=lenient))
    if not validated.dataset.num_rows:
        return None
    unlimited = stages.confidential.model_copy(update={"max_removed_share": 1.0})
    filtered = confidential.filter_confidential(validated.dataset, unlimited)
    if not filtered.dataset.num_rows:
        return None
    return scrub_dataset(filtered.dataset, stages.pii.model_copy(update={"max_quarantined_share": 1.0})).dataset


def monitoring_of(config: RetrainConfig) -> MonitoringConfig:
    """The section ``monitoring``.

    Raises:
        ConfigError: There is none.
    """
    if config.monitoring is None:
        raise ConfigError(
            "monitoring", "nothing", "a section that names the production log", "See examples/monitoring.yaml."
        )
    return config.monitoring
