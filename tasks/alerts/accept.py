"""Settings of the accept rules: what a sender sends, and how it proves who it is.

A rule holds JMESPath expressions over one alert of the request (:mod:`tasks.alerts.expressions`). The presets are the same
settings in a file; a rule that names one replaces what it states itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.documents import parse_yaml, read_text

PRESETS = Path(__file__).parent / "data" / "presets.yaml"
SENDER = r"^[a-z0-9][a-z0-9-]{0,39}$"
_HEADER = r"^[A-Za-z0-9-]{1,100}$"
_MARK = re.compile(r"\{([^{}]*)\}")


def _compiles(expression: str) -> str:
    """The expression, if it is one.

    Raises:
        ValueError: It is no JMESPath; the message names the place.
    """
    from tasks.alerts.expressions import check_expression

    check_expression(expression)
    return expression


Expression = Annotated[str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(_compiles)]
Words = Annotated[tuple[str, ...], Field(max_length=100)]
Kind = Literal["bearer", "header", "basic", "query", "path", "hmac", "sns"]


class SenderAuth(FrozenModel):
    """One way to prove who sends. The secret stands in an environment variable, a file or a Prefect block, never here."""

    kind: Kind = Field(
        description="Where the secret is: `bearer` in `Authorization: Bearer`, `header` in the header `header`, `basic` as "
        "the password of `user`, `query` in the parameter `parameter`, `path` as the last part of the path "
        "(`/alerts/SENDER/SECRET`); `hmac` signs with it; `sns` is Amazon's signature, which `certificates` verify."
    )
    variable: str | None = Field(
        None,
        pattern=r"^[A-Z][A-Z0-9_]{0,99}$",
        description="Environment variable with the secret, several one a line; with `_FILE` after it, of a file. None: "
        "`PERENNIAL_ALERT_` and the sender in capitals, such as `PERENNIAL_ALERT_NEW_RELIC`.",
    )
    block: str | None = Field(
        None, min_length=1, max_length=200, description="Prefect Secret block with the secret, instead."
    )
    user: str = Field("perennial", min_length=1, max_length=100, description="User name of `basic`.")
    parameter: str = Field("token", pattern=r"^[A-Za-z0-9_.-]{1,100}$", description="Parameter of the address, for `query`.")
    header: str = Field("X-Signature", pattern=_HEADER, description="Header of `header` or `hmac`.")
    prefix: str = Field(
        "",
        max_length=100,
        description="What precedes the secret or each signature in the header: `sha256=`, `v1=`, `Token `.",
    )
    encoding: Literal["hex", "base64"] = Field("hex", description="How a signature is written.")
    algorithm: Literal["sha256", "sha512", "sha1"] = Field("sha256", description="Hash of `hmac`.")
    key_encoding: Literal["text", "hex", "base64"] = Field("text", description="How the key of `hmac` is written.")
    signed: str = Field(
        "{body}",
        max_length=500,
        description="What `hmac` signs: `{body}`, and with `{timestamp}` a time, as in `{timestamp}.{body}`; any other name "
        "in braces is a header.",
    )
    timestamp_header: str | None = Field(
        None, pattern=_HEADER, description="Header of the signed time, in Unix seconds or ms."
    )
    timestamp_prefix: str | None = Field(
        None, min_length=1, max_length=20, description="Instead, what precedes the time in `header` itself: `t=`."
    )
    tolerance_seconds: float = Field(
        300.0,
        ge=1.0,
        le=86_400.0,
        description="A signed time further from now is rejected, so that no request is replayed later.",
    )
    certificates: tuple[str, ...] = Field(
        (), max_length=20, description="Files (PEM) with the signing certificates of `sns`; nothing is fetched to verify."
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        marks = _MARK.findall(self.signed)
        has_source = self.timestamp_header is not None or self.timestamp_prefix is not None
        if self.kind == "hmac" and "body" not in marks:
            raise ValueError("`signed` must contain {body}: a signature that does not cover it proves nothing")
        if ("timestamp" in marks) != has_source:
            raise ValueError("a signed time needs {timestamp} in `signed`, and timestamp_header or timestamp_prefix")
        if self.kind == "sns" and not self.certificates:
            raise ValueError("sns needs `certificates`, the files of Amazon's signing certificates; or use the kind `path`")
        return self


class AcceptRule(FrozenModel):
    """Alerts of one sender, which it posts to `/alerts/SENDER`. Each text that is read is a JMESPath expression."""

    preset: str | None = Field(None, description="A preset whose settings hold where the rule has none of its own.")
    sender: str = Field(pattern=SENDER, description="Its name, in the path and with every alert. The preset's by default.")
    auth: Annotated[
        tuple[SenderAuth, ...], BeforeValidator(lambda given: [given] if isinstance(given, Mapping) else given)
    ] = Field(min_length=1, max_length=5, description="How it proves who it is; one of them suffices.")
    require: Expression | None = Field(
        None, description="Must hold for every request, else it is rejected: `TopicArn == 'arn:...'`."
    )
    each: Expression = Field("@", description="The alerts in the body: a list, or one object.")
    name: Expression = Field(description="The alert's name.")
    model: Expression | None = Field(
        None, description="The model; where it gives nothing, `?model=` in the address, else the only model served."
    )
    models: Mapping[str, str] = Field(
        {}, description="Names of models as the sender writes them, to names of `deployments`."
    )
    signal: Expression | None = Field(
        None, description="What was measured; where it gives nothing, `?signal=`, else the name."
    )
    state: Expression | None = Field(None, description="Whether it fires; without it, every alert does.")
    firing: Words = Field((), description="Values of `state` that start something; upper and lower case are equal.")
    resolved: Words = Field((), description="Values that say that it is over; they start nothing.")
    ignored: Words = Field((), description="Values of tests, comments and the like; they start nothing.")
    time: Expression = Field(
        "received()", description="When it began to fire: ISO 8601, or Unix time in s, ms, µs or ns. By default, on receipt."
    )
    time_format: str | None = Field(None, max_length=100, description="Another form of a time, as in Python's strptime.")
    timezone: str | None = Field(
        None, description="Zone of times that have none, such as `UTC`; without it they are rejected."
    )
    window_start: Expression | None = Field(
        None, description="Start of the window of rows; `default_window_hours` by default."
    )
    window_end: Expression | None = Field(None, description="End of that window; the time by default.")
    key: Expression | None = Field(
        None, description="What makes two alerts the same one, such as an incident's id; name, model and signal by default."
    )
    fields: tuple[str, ...] = Field((), max_length=100, description="The only fields that an alert may have; none: any.")
    handshake: Literal["sns", "cloudevents"] | None = Field(
        None, description="How an address is confirmed before alerts come: Amazon SNS' subscription, CloudEvents' OPTIONS."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        given = {"preset": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or "preset" not in given:
            return given
        known = read_presets()
        name = given["preset"]
        if name not in known:
            raise ValueError(f"no such preset; there are {', '.join(known)}")
        return {"sender": name, **known[name], **given}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        words = [word.casefold() for word in (*self.firing, *self.resolved, *self.ignored)]
        if len(words) != len(set(words)):
            raise ValueError("a value of `state` stands twice in firing, resolved and ignored")
        if (self.state is None) != (not self.firing):
            raise ValueError("`state` and `firing` belong together: an expression, and the values that fire")
        if self.timezone is not None:
            try:
                ZoneInfo(self.timezone)
            except (ValueError, KeyError, OSError) as error:
                raise ValueError("timezone: no such zone; expected a name such as Europe/Berlin") from error
        return self


@functools.cache
def read_presets() -> Mapping[str, Mapping[str, Any]]:
    """The settings of each preset."""
    presets: Mapping[str, Mapping[str, Any]] = parse_yaml(read_text(PRESETS))
    return presets


@functools.cache
def rule_of(preset: str) -> AcceptRule:
    """A preset as a rule."""
    return AcceptRule.model_validate(preset)


def default_variable(sender: str) -> str:
    """The environment variable of a sender's secret."""
    return f"PERENNIAL_ALERT_{sender.upper().replace('-', '_')}"
