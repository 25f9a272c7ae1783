"""Addresses of targets: read from a secret, checked, and given a message by Apprise. No error shows one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import apprise

from flows.support.operating import NotifyTarget
from perennial.services.news import Message
from tasks.core.errors import ConfigError
from tasks.core.secrets import load_secret

Send = Callable[[str, Message], bool]
_EXPECTED = "one address in Apprise's form, such as mailto://user:password@host or slack://..."


def address_of(model: str, target: NotifyTarget) -> str:
    """The address of a target.

    Raises:
        ConfigError: There is none, it is not in Apprise's form, or there are several: if one of them fails, all would get
            the message again.
    """
    setting = f"operate.notify.{target.name}.block of {model}"
    address = load_secret(setting, variable=target.variable, block=target.block)
    source = f"the Secret block {target.block}" if target.block else f"the environment variable {target.variable}"
    if address is None:
        raise ConfigError(setting, f"nothing in {source}", _EXPECTED, "Set it; perennial notify --test tries it.")
    sender = _sender()
    if not sender.add(address):
        raise ConfigError(setting, f"no address in {source}", _EXPECTED, "Correct it; perennial notify --test tries it.")
    if len(sender) > 1:
        raise ConfigError(setting, f"{len(sender)} addresses in {source}", _EXPECTED, "Name a target for each of them.")
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
