"""`perennial notify`: looks at every model, and notifies its targets of what is new.

It reads Prefect, the registry and the stores, and writes its outbox alone. Runs send nothing themselves: one that was killed
is reported all the same, and no worker holds the address of a person. A fault of one model, its file or its target delays
no message of another.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefect.client.orchestration import get_client

from flows.support.config import RetrainConfig
from flows.support.operating import NotifyTarget
from perennial.operations.deployment import prefect_errors
from perennial.operations.ended_runs import EndedRun, read_ended
from perennial.operations.fleet import fleet_of, readable_configs
from perennial.services.addresses import Send, address_of, send_with_apprise
from perennial.services.news import Message, news_of, news_of_runs
from perennial.services.outbox import Outbox, Waiting
from tasks.alerts.delivery import pause_seconds
from tasks.core.addresses import first_line
from tasks.core.errors import ConfigError, PerennialError

logger = logging.getLogger(__name__)

_OVERLAP = dt.timedelta(minutes=10)
"""Runs are read from this long before the last look: a state may reach the server late, and clocks differ."""
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0


class Watched:
    """The models that are watched, and their targets.

    A model whose file or deployment cannot be read stays as it was read last.

    Args:
        paths: Files of models and folders of them; empty takes the models that are deployed on the server.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._configs: dict[str, RetrainConfig] = {}
        self.complete = False
        """Whether the last look could read every model, so that what is missing is gone."""

    def read(self) -> list[RetrainConfig]:
        """Reads the models' configurations again.

        Raises:
            ConfigError: There is no model.
            PerennialError: Prefect does not respond.
        """
        self.complete = False
        configs, faults = readable_configs(self._paths)
        for fault in faults:
            logger.error("a model cannot be read, and stays as it was: %s", first_line(fault))
        self._configs = {**(self._configs if faults else {}), **{config.name: config for config in configs}}
        self.complete = not faults
        return list(self._configs.values())

    def targets(self) -> Iterator[tuple[str, NotifyTarget]]:
        """Every target with its model."""
        for model, config in self._configs.items():
            for target in config.operate.notify:
                yield model, target

    def target(self, model: str, name: str) -> NotifyTarget | None:
        """The target of this name."""
        return next((target for owner, target in self.targets() if (owner, target.name) == (model, name)), None)

    def check(self) -> tuple[list[str], list[str]]:
        """Reads every target's address.

        Returns:
            The targets that have one, as ``model/target``, and the models without such a target.

        Raises:
            ConfigError: No target has an address, or there is no target.
            PerennialError: Prefect does not respond.
        """
        configs = self.read()
        usable: dict[str, str] = {}
        faults: list[ConfigError] = []
        for model, target in self.targets():
            try:
                address_of(model, target)
                usable[f"{model}/{target.name}"] = model
            except ConfigError as fault:
                faults.append(fault)
                logger.error("%s/%s gets no message: %s", model, target.name, first_line(fault))
        if faults and not usable:
            raise faults[0]
        if not usable:
            todo = "Add it to the models' files, then deploy them; see docs/operating.md."
            raise ConfigError("operate.notify", "no target of any model", "at least one", todo)
        return list(usable), sorted(config.name for config in configs if config.name not in usable.values())

    def test(self, send: Send = send_with_apprise) -> list[str]:
        """Sends a test message to every target, past the outbox; the targets that did not take it."""
        failed = []
        for model, target in self.targets():
            message = Message(
                "test", model, "requested", f"[{model}] a test of notifications", "Sent by perennial notify --test."
            )
            try:
                received = send(address_of(model, target), message)
            except ConfigError:  # `check` said which
                received = False
            if not received:
                failed.append(f"{model}/{target.name}")
        return failed


class Notifier:
    """Finds news, and delivers it.

    Args:
        outbox: What was reported, and what waits.
        watched: The models.
        send: Gives a message to an address; False when the receiver did not take it.
    """

    def __init__(self, outbox: Outbox, watched: Watched, send: Send = send_with_apprise) -> None:
        self._outbox = outbox
        self._watched = watched
        self._send = send

    def look(self, now: dt.datetime) -> tuple[int, bool]:
        """Puts what is new into the outbox.

        Args:
            now: The time, in UTC.

        Returns:
            The number of new messages, and whether all could be read.

        Raises:
            PerennialError: Prefect does not respond, or the outbox cannot be written; the next look sees the same news.
        """
        configs = self._watched.read()
        text = now.isoformat(timespec="seconds")
        since = self._outbox.note("since") or text
        looked = dt.datetime.fromisoformat(self._outbox.note("looked") or text)
        fleet = fleet_of(configs, now)
        messages = list(news_of_runs(_runs_since(max(looked - _OVERLAP, dt.datetime.fromisoformat(since)))))
        notes = {"since": since, "looked": text}
        for status in fleet.models:
            note = f"production {status.name}"
            messages += news_of(status, now, since, self._outbox.note(note))
            if status.production is not None:
                notes[note] = ",".join(status.production.violated)
            for part in status.away:
                logger.warning("%s: %s could not be read; what is new there is reported later", status.name, part)
        addressed = [
            (message, target.name)
            for message in messages
            for model, target in self._watched.targets()
            if model == message.model and message.event in target.events
        ]
        all_read = self._watched.complete and not any(status.away for status in fleet.models)
        return self._outbox.put(addressed, notes, now.timestamp()), all_read

    def deliver(self, now: float) -> int:
        """Sends what is due; the number that was received. The rest waits, for pauses that double up to an hour.

        Args:
            now: Unix time.

        Raises:
            StoreError: The outbox cannot be written; what it could not record is not sent.
        """
        return sum(self._attempt(waiting, now) for waiting in self._outbox.due(now))

    def _attempt(self, waiting: Waiting, now: float) -> bool:
        """Whether the message was received."""
        message, name = waiting.message, f"{waiting.message.model}/{waiting.target}"
        target = self._watched.target(message.model, waiting.target)
        if target is None and self._watched.complete:
            self._outbox.drop(waiting)
            logger.warning("%s is in no configuration any more, and does not get %s", name, message.key)
            return False
        pause = pause_seconds(waiting.num_attempts + 1, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._outbox.begin(waiting, now + pause)
        try:
            received = target is not None and self._send(address_of(message.model, target), message)
        except PerennialError as error:
            logger.error("%s: %s", name, first_line(error))
            received = False
        if received:
            self._outbox.mark_sent(waiting, now)
            logger.info("%s received: %s", name, message.key)
        else:
            logger.warning("%s did not take %s; next attempt in %.0f s", name, message.key, pause)
        return received

    def run(self, seconds: float) -> None:
        """Looks and delivers, again and again, until interrupted."""
        while True:
            self.step()
            time.sleep(seconds)

    def step(self) -> bool:
        """One look and one delivery; whether all could be read and everything due was received."""
        try:
            _, done = self.look(dt.datetime.now(dt.UTC))
        except PerennialError as error:
            done = False
            logger.error("nothing new was read: %s", first_line(error))
        try:
            while self.deliver(time.time()):
                pass
            return done and not self._outbox.num_waiting()
        except PerennialError as error:
            logger.error("not everything was sent: %s", first_line(error))
            return False


def _runs_since(since: dt.datetime) -> list[EndedRun]:
    with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
        return read_ended(client, since)
