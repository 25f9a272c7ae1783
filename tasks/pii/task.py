"""Scrubbing and its verification as Prefect tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import ScrubbedShard, ScrubReport, ScrubShards, ScrubVerification
from tasks.contracts.references import DatasetRef, FileRef
from tasks.core.errors import IntegrityError, QualityLimitError, ScrubVerificationError
from tasks.core.pages import markdown_text
from tasks.core.quarantine import count_reasons
from tasks.core.rows import SCHEMAS, Row, RowTable, TableRows
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, run_store
from tasks.core.term_lists import in_full, items_of
from tasks.pii.config import PiiConfig

if TYPE_CHECKING:
    from tasks.pii.cost import MaskingCost
    from tasks.pii.policy import Policy
    from tasks.pii.rows import ScrubbedRows


def _scrub_page(report: ScrubReport) -> str:
    lines = [
        f"{report.num_rows_in} rows in, {report.dataset.num_rows} scrubbed, {report.num_quarantined} quarantined.",
        "",
        "| entity | values replaced |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in report.entities.items()),
        *_terms_page(report),
    ]
    return "\n".join(lines)


def _terms_page(report: ScrubReport) -> list[str]:
    if not report.frequent_terms:
        return []
    lines = [f"| {markdown_text(one.term)} | {one.entity} | {one.num_rows} |" for one in report.frequent_terms]
    return [
        "",
        "Masked in many rows; what names no person may go into `pii.allowed_terms` (`perennial terms`):",
        "",
        "| term | entity | rows |",
        "|---|---|---|",
        *lines,
    ]


def _verification_page(verification: ScrubVerification) -> str:
    recall = verification.canary_recall
    return "\n".join(
        [
            "| check | result |",
            "|---|---|",
            f"| canaries | {verification.num_canaries} planted, {verification.num_canaries_leaked} leaked |",
            f"| recall, 95 % interval | {recall.value:.3f} ({recall.low:.3f} to {recall.high:.3f}), "
            f"from {verification.min_canary_recall:.3f} on |",
            f"| values that independent readers found open | {verification.num_leaks}, {verification.max_leaks} allowed |",
            f"| both gates hold | {'yes' if verification.holds else 'no'} |",
            f"| rows that the second look took out, no gate | {verification.num_rows_caught} |",
        ]
    )


@stage(page=_scrub_page, title="Personal data replaced")
def scrub(dataset: DatasetRef, config: PiiConfig) -> ScrubReport:
    """The rows with personal data replaced; rows that cannot be scrubbed are quarantined.

    Raises:
        ConfigError: A keyed operator without a key, or with another key than expected.
        QualityLimitError: More than ``max_quarantined_share`` of the rows could not be scrubbed.
    """
    from tasks.pii.rows import quarantine_known_values

    config, rows = in_full(config), run_store().read_rows(dataset)
    policy = _policy_for(rows, config)
    result = _scrub(rows, dataset.kind, policy, config.num_workers)
    originals = {row["id"]: row for row in rows}
    quarantine_known_values(result, originals)
    whole = _Joined(kept=RowTable(dataset.kind), quarantined=result.quarantined)
    whole.add(result, originals)
    return _build_report(dataset, whole, policy)


@stage()
def cut_shards(dataset: DatasetRef, config: PiiConfig) -> ScrubShards:
    """The data set in consecutive shards of ``rows_per_shard`` rows, for :func:`scrub_shard`."""
    config, store = in_full(config), run_store()
    table, size = store.read_table(dataset), config.rows_per_shard
    policy = _policy_for(TableRows(table), config)
    common = {"common_terms": sorted(policy.common_terms), "class_values": sorted(policy.class_values)}
    shards = tuple(
        store.write_table(table.slice(first, size), kind=dataset.kind, parents=[dataset], passed=dataset.passed)
        for first in range(0, table.num_rows, size)
    )
    stage_progress().summarize(f"{len(shards)} shards of {size} rows")
    return ScrubShards(shards=shards, common=store.write_bytes(json.dumps(common).encode(), ".json"))


@stage()
def scrub_shard(shard: DatasetRef, common: FileRef, config: PiiConfig, store_uri: str) -> ScrubbedShard:
    """One shard with personal data replaced; the same wherever and beside whatever else it runs.

    Args:
        shard: The rows.
        common: The product names and classes of the whole data set.
        config: Settings of the scrubber.
        store_uri: The run's store, which a task runner's other processes have not opened.
    """
    from tasks.pii.rows import FINDINGS_SCHEMA

    config, store = in_full(config), run_store()
    policy = _common_policy(store, common, config)
    num_workers = 1 if config.runner == "ray" else config.num_workers
    result = _scrub(store.read_rows(shard), shard.kind, policy, num_workers)
    stage_progress().summarize(f"{len(result.kept)} rows scrubbed, {len(result.quarantined)} quarantined")
    return ScrubbedShard(
        kept=store.write_rows(result.kept, kind=shard.kind, parents=[shard], passed=shard.passed),
        refused=store.write_quarantine(result.quarantined, parents=[shard], passed=shard.passed),
        findings=store.write_table(
            pa.Table.from_pylist(result.findings, schema=FINDINGS_SCHEMA), kind="table", parents=[shard]
        ),
        num_characters=result.num_characters,
        num_masked_characters=result.num_masked_characters,
        policy_sha256=policy.sha256,
    )


@stage(page=_scrub_page, key="scrub", title="Personal data replaced")
def join_shards(dataset: DatasetRef, cut: ScrubShards, parts: Sequence[ScrubbedShard], config: PiiConfig) -> ScrubReport:
    """What :func:`scrub` makes of the whole data set, to the byte, from its scrubbed shards.

    Raises:
        IntegrityError: A shard was scrubbed by other rules: another key, model or version of the code.
        QualityLimitError: More than ``max_quarantined_share`` of the rows could not be scrubbed.
    """
    from tasks.pii.rows import distinctive_values, quarantine_known_values

    progress, num_done = stage_progress(), 0
    config, store = in_full(config), run_store()
    policy = _common_policy(store, cut.common, config)
    for number, part in enumerate(parts, start=1):
        if part.policy_sha256 != policy.sha256:
            raise IntegrityError(
                f"shard {number} of data set {dataset.sha256[:12]}",
                f"rows scrubbed under policy {part.policy_sha256[:12]}",
                f"policy {policy.sha256[:12]}, as here",
                "Give every worker the same release, name model and key, and run again.",
            )
    values: set[tuple[str, ...]] = set()
    joined = _Joined(kept=RowTable(dataset.kind))
    # Shard by shard, twice: a value found in the last shard may still stand in the first.
    for shard, part in zip(cut.shards, parts, strict=True):
        findings = store.read_table(part.findings).to_pylist()
        values |= distinctive_values(findings, {row["id"]: row for row in store.read_rows(shard)})
    caught: list[dict[str, Any]] = []
    for shard, part in zip(cut.shards, parts, strict=True):
        scrubbed = _read_part(store, part)
        scrubbed.values = values
        num_quarantined = len(scrubbed.quarantined)
        originals = {row["id"]: row for row in store.read_rows(shard)}
        quarantine_known_values(scrubbed, originals)
        joined.quarantined += scrubbed.quarantined[:num_quarantined]
        caught += scrubbed.quarantined[num_quarantined:]
        joined.add(scrubbed, originals)
        num_done += shard.num_rows
        progress(num_done)
    joined.quarantined += caught
    return _build_report(dataset, joined, policy)


def _policy_for(rows: Sequence[Row], config: PiiConfig) -> Policy:
    """The rules for a whole data set."""
    from tasks.pii.policy import Policy
    from tasks.pii.rows import find_class_values, find_common_terms

    policy = Policy(config, config.load_key(), find_common_terms(rows, config.common_term_share))
    return replace(policy, class_values=find_class_values(rows, policy))


def _common_policy(store: Store, common: FileRef, config: PiiConfig) -> Policy:
    """The same rules for one of its shards."""
    from tasks.pii.policy import Policy

    found = json.loads(store.read_bytes(common))
    return Policy(config, config.load_key(), frozenset(found["common_terms"]), frozenset(found["class_values"]))


def _new_cost() -> MaskingCost:
    from tasks.pii.cost import MaskingCost

    return MaskingCost()


@dataclass
class _Joined:
    """All of a data set's scrubbed rows and findings in Arrow, its quarantined rows and its counts."""

    kept: RowTable
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    findings: list[pa.Table] = field(default_factory=list)
    cost: MaskingCost = field(default_factory=_new_cost)
    num_characters: int = 0
    num_masked_characters: int = 0

    def add(self, rows: ScrubbedRows, originals: Mapping[str, Row]) -> None:
        """Adds all of some rows but the quarantined ones; ``originals`` are the rows as they were, by id."""
        from tasks.pii.rows import FINDINGS_SCHEMA

        self.cost.add(rows.kept, rows.findings, originals)
        self.kept.extend(rows.kept)
        self.findings.append(pa.Table.from_pylist(rows.findings, schema=FINDINGS_SCHEMA))
        self.num_characters += rows.num_characters
        self.num_masked_characters += rows.num_masked_characters


def _read_part(store: Store, part: ScrubbedShard) -> ScrubbedRows:
    from tasks.pii.rows import ScrubbedRows

    return ScrubbedRows(
        kept=store.read_rows(part.kept),
        quarantined=store.read_rows(part.refused) if part.refused else [],
        findings=store.read_table(part.findings).to_pylist(),
        num_characters=part.num_characters,
        num_masked_characters=part.num_masked_characters,
    )


def _scrub(rows: list[dict[str, Any]], kind: str, policy: Policy, num_workers: int) -> ScrubbedRows:
    from tasks.pii.sharding import num_useful_workers, scrub_in_processes

    workers = num_useful_workers(rows, num_workers)
    return scrub_in_processes(rows, SCHEMAS[kind], policy, workers, on_progress=stage_progress())


def _build_report(dataset: DatasetRef, result: _Joined, policy: Policy) -> ScrubReport:
    """The report of rows that were checked against the values found in all others."""
    from tasks.pii.cost import MIN_CHARACTERS
    from tasks.pii.rows import STAGE

    store, config = run_store(), policy.config
    if dataset.num_rows and len(result.quarantined) / dataset.num_rows > config.max_quarantined_share:
        raise QualityLimitError(
            f"scrubbing of data set {dataset.sha256[:12]}",
            f"{len(result.quarantined)} of {dataset.num_rows} rows that cannot be scrubbed",
            f"at most {config.max_quarantined_share:.0%}",
            "Look at the reasons in the quarantine, or raise pii.max_quarantined_share.",
        )
    share = result.num_masked_characters / result.num_characters if result.num_characters else 0.0
    if share > config.max_masked_share and result.num_characters >= MIN_CHARACTERS:
        most = ", ".join(
            f"{entity} {count / result.num_characters:.1%}" for entity, count in result.cost.characters.most_common(3)
        )
        raise QualityLimitError(
            f"scrubbing of data set {dataset.sha256[:12]}",
            f"{share:.1%} of all characters masked ({most})",
            f"at most {config.max_masked_share:.0%}",
            "Give pii.ner a model that reads these texts, use pii.mode `balanced`, or name in pii.allowed_terms what is no "
            "personal data; raise pii.max_masked_share if the texts are lists of people.",
        )
    table = pa.concat_tables(result.findings)
    findings = store.write_table(table, kind="table", parents=[dataset])
    entities = {count["values"]: count["counts"] for count in pc.value_counts(table["entity"]).to_pylist()}
    kept = store.write_table(result.kept.table(), kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "scrubbed"))
    stage_progress().summarize(
        f"{kept.num_rows} rows scrubbed, {findings.num_rows} values replaced, {len(result.quarantined)} quarantined"
    )
    return ScrubReport(
        stage=STAGE,
        dataset=kept,
        num_rows_in=dataset.num_rows,
        quarantine=store.write_quarantine(result.quarantined, parents=[dataset], passed=dataset.passed),
        quarantined=count_reasons(result.quarantined, "quarantined"),
        findings=findings,
        entities=dict(sorted(entities.items())),
        frequent_terms=result.cost.frequent_terms(),
        policy_sha256=policy.sha256,
        key_id=policy.key_id,
        measurements=(
            Measurement(name="masked_character_share", value=share, num_samples=result.num_characters),
            *result.cost.measurements(result.num_characters),
            *_language_shares(result),
            Measurement(
                name="common_terms", value=len(policy.common_terms), note="frequent unknown words not taken for names"
            ),
        ),
    )


def _language_shares(result: _Joined) -> Iterator[Measurement]:
    """The share of the rows in each language, of the scrubbed ones and of those that no model here reads."""
    from tasks.core.rows import iter_texts
    from tasks.text.languages import language_of

    languages = Counter(
        language_of("\n".join(text for _, text in iter_texts(row) if isinstance(text, str))) or "too short to tell"
        for row in TableRows(result.kept.table())
    )
    for entry in result.quarantined:
        reason, _, language = str(entry["reason"]).partition(":")
        languages.update([language] if reason == "unsupported_language" else [])
    total = languages.total()
    for language, count in sorted(languages.items(), key=lambda item: (-item[1], item[0])):
        yield Measurement(name=f"share of rows in {language}", value=count / total, num_samples=total)


@stage(page=_verification_page, title="Scrubbing verified")
def verify_scrub(scrubbed: ScrubReport, config: PiiConfig) -> ScrubVerification:
    """Evidence that scrubbing worked: canary recall with its interval, independent readers, a sample for a reviewer.

    Raises:
        ScrubVerificationError: Canary recall is below its gate, or an independent reader found a value.
    """
    from tasks.pii.policy import Policy
    from tasks.pii.rows import SECOND_LOOK, output_spans
    from tasks.pii.scrubbing import scrub_batch
    from tasks.pii.verify.evidence import ScrubbedText, measure_canaries, sample_rows
    from tasks.pii.verify.leaks import find_leaks

    config, store = in_full(config), run_store()
    rules = config.verification
    policy = Policy(config, config.load_key())

    def scrub_texts(texts: list[str]) -> list[ScrubbedText]:
        result = scrub_batch(texts, policy)
        return [(text, result.replacements.get(index, ())) for index, text in enumerate(result.texts)]

    recall, by_entity = measure_canaries(scrub_texts, rules.num_canaries, rules.seed)
    rows = TableRows(store.read_table(scrubbed.dataset))
    kept = [entity for entity, operator in config.operators.items() if operator == "keep"]
    spans = output_spans(store.read_table(scrubbed.findings).to_pylist())
    leaks = [leak for leak in find_leaks(rows, spans, items_of(config.allowed_terms)) if leak.entity not in kept]
    stage_progress().summarize(f"{recall.value:.1%} of {rules.num_canaries} canaries caught, {len(leaks)} values found open")
    sample = sample_rows(rows, rules.sample_size, rules.seed)
    sample_ref = store.write_bytes("".join(json.dumps(row, sort_keys=True) + "\n" for row in sample).encode(), ".jsonl")
    leaked = sum(lost for _, lost in by_entity.values())
    verification = ScrubVerification(
        dataset=scrubbed.dataset,
        num_canaries=rules.num_canaries,
        num_canaries_leaked=leaked,
        canary_recall=recall,
        min_canary_recall=rules.min_canary_recall,
        num_leaks=len(leaks),
        max_leaks=rules.max_leaks,
        num_rows_caught=sum(count for reason, count in scrubbed.quarantined.items() if reason.startswith(SECOND_LOOK)),
        sample=sample_ref,
        measurements=tuple(
            Measurement(name=f"canary_recall {entity}", value=1 - lost / planted, num_samples=planted)
            for entity, (planted, lost) in by_entity.items()
        ),
    )
    if not verification.holds:
        places = ", ".join(f"row {leak.row_id} {leak.field} [{leak.start}:{leak.end}] {leak.entity}" for leak in leaks[:5])
        raise ScrubVerificationError(
            f"verification of scrubbed data set {scrubbed.dataset.sha256[:12]}",
            f"canary recall {recall.value:.1%} (95 % interval from {recall.low:.1%}), {len(leaks)} values found open"
            + (f": {places}" if places else ""),
            f"an interval from {rules.min_canary_recall:.1%} up and at most {rules.max_leaks} open values",
            "Use a stricter pii.mode or a better pii.ner model, name what may stand open in pii.allowed_terms, or report "
            "the rows above as a scrubber fault.",
        )
    return verification
