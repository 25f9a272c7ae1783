"""`perennial notify`: looks at every model, and notifies its targets of what is new.

It reads Prefect, the registry and the stores, and writes its outbox alone. Runs send nothing themselves: one that was killed
is reported all the same, and no worker holds the address of a person.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apprise
from prefect.client.orchestration import get_client

from flows.support.config import RetrainConfig
from flows.support.operating import NotifyTarget
from perennial.operations.deployment import prefect_errors
from perennial.operations.ended_runs import EndedRun, read_ended
from perennial.operations.fleet import fleet_of, read_configs
from perennial.services.news import Message, news_of, news_of_runs
from perennial.services.outbox import Outbox
from tasks.alerts.delivery import pause_seconds
from tasks.core.addresses import first_line
from tasks.core.errors import ConfigError, PerennialError
from tasks.core.secrets import load_secret

logger = logging.getLogger(__name__)

Send = Callable[[str, Message], bool]
_OVERLAP = dt.timedelta(minutes=10)
"""Runs are read from this long before the last look: a state may reach the server late, and clocks differ."""
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0
_EXPECTED = "an address in Apprise's form, such as mailto://user:password@host or slack://..."


class Notifier:
    """Finds news, and delivers it.

    Args:
        outbox: What was reported, and what waits.
        paths: Files of models and folders of them; empty takes the models that are deployed on the server.
        send: Gives a message to an address; False when the receiver did not take it.
    """

    def __init__(self, outbox: Outbox, paths: Sequence[Path], send: Send | None = None) -> None:
        self._outbox = outbox
        self._paths = paths
        self._send = send or send_with_apprise
        self._targets: dict[tuple[str, str], NotifyTarget] = {}
        self._all_read = True

    def check_targets(self) -> tuple[list[str], list[str]]:
        """Reads every target's address.

        Returns:
            The targets, as ``model/target``, and the models without one.

        Raises:
            ConfigError: An address is missing or is none, or no model has a target.
            PerennialError: Prefect does not respond.
        """
        configs = read_configs(self._paths)
        self._remember(configs)
        for (model, _), target in self._targets.items():
            address_of(model, target)
        if not self._targets:
            todo = "Add it to the models' files, then deploy them; see docs/operating.md."
            raise ConfigError("operate.notify", "no target of any model", "at least one", todo)
        without = sorted(config.name for config in configs if not config.operate.notify)
        return [f"{model}/{target}" for model, target in self._targets], without

    def test(self) -> list[str]:
        """Sends a test message to every target, past the outbox; the targets that did not take it."""
        failed = []
        for (model, name), target in self._targets.items():
            message = Message(
                "test", model, "requested", f"[{model}] a test of notifications", "Sent by perennial notify --test."
            )
            if not self._send(address_of(model, target), message):
                failed.append(f"{model}/{name}")
        return failed

    def look(self, now: dt.datetime) -> int:
        """Puts what is new into the outbox; the number of new messages.

        Args:
            now: The time, in UTC.

        Raises:
            PerennialError: Prefect does not respond; the next look sees the same news.
        """
        configs = read_configs(self._paths)
        self._remember(configs)
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
                notes[note] = status.production.status
            self._all_read &= not status.away
            for part in status.away:
                logger.warning("%s: %s could not be read; what is new there is reported later", status.name, part)
        addressed = [
            (message, name)
            for message in messages
            for (model, name), target in self._targets.items()
            if model == message.model and message.event in target.events
        ]
        return self._outbox.put(addressed, notes, now.timestamp())

    def deliver(self, now: float) -> int:
        """Sends what is due; the number that was received. The rest waits, for pauses that double up to an hour.

        Args:
            now: Unix time.
        """
        num_sent = 0
        for waiting in self._outbox.due(now):
            message, target = waiting.message, self._targets.get((waiting.message.model, waiting.target))
            try:
                received = target is not None and self._send(address_of(message.model, target), message)
            except PerennialError as error:
                logger.error("%s/%s: %s", message.model, waiting.target, first_line(error))
                received = False
            if received:
                self._outbox.mark_sent(waiting, now)
                num_sent += 1
                logger.info("%s/%s received: %s", message.model, waiting.target, message.key)
                continue
            pause = pause_seconds(waiting.num_attempts + 1, _FIRST_PAUSE, _LONGEST_PAUSE)
            self._outbox.postpone(waiting, now + pause)
            why = "did not take" if target is not None else "is in no configuration any more, and did not get"
            logger.warning("%s/%s %s %s; next attempt in %.0f s", message.model, waiting.target, why, message.key, pause)
        return num_sent

    def run(self, seconds: float) -> None:
        """Looks and delivers, again and again, until interrupted."""
        while True:
            self.step()
            time.sleep(seconds)

    def step(self) -> bool:
        """One look and one delivery; whether all could be read and everything due was received."""
        self._all_read = True
        try:
            self.look(dt.datetime.now(dt.UTC))
        except PerennialError as error:
            self._all_read = False
            logger.error("nothing new was read: %s", first_line(error))
        while self.deliver(time.time()):
            pass
        return self._all_read and not self._outbox.num_waiting()

    def _remember(self, configs: Sequence[RetrainConfig]) -> None:
        self._targets = {(config.name, one.name): one for config in configs for one in config.operate.notify}


def address_of(model: str, target: NotifyTarget) -> str:
    """The address of a target.

    Raises:
        ConfigError: There is none, or it is not in Apprise's form. The error does not show it.
    """
    setting = f"operate.notify.{target.name}.block of {model}"
    address = load_secret(setting, variable=target.variable, block=target.block)
    source = f"the Secret block {target.block}" if target.block else f"the environment variable {target.variable}"
    if address is None:
        raise ConfigError(setting, f"nothing in {source}", _EXPECTED, "Set it; perennial notify --test tries it.")
    if not _sender().add(address):
        raise ConfigError(setting, f"no address in {source}", _EXPECTED, "Correct it; perennial notify --test tries it.")
    return address


def send_with_apprise(address: str, message: Message) -> bool:
    """Whether the receiver took the message."""
    sender = _sender()
    sender.add(address)
    kind = apprise.NotifyType.INFO if message.event in ("requested", "promoted", "held") else apprise.NotifyType.WARNING
    text = apprise.NotifyFormat.TEXT
    return sender.notify(message.body, title=message.title, notify_type=kind, body_format=text) is True


def _sender() -> apprise.Apprise:
    """An empty list of receivers; apprise keeps no files and logs nothing, for its lines may show an address."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    return apprise.Apprise(asset=apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY))


def _runs_since(since: dt.datetime) -> list[EndedRun]:
    with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
        return read_ended(client, since)
