"""Amazon SNS over HTTP: the signature of its messages, and the address that confirms a subscription.

A signature is verified with certificates from files, so that nothing is fetched to verify. Source:
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_HOST = re.compile(r"sns\.[a-z0-9-]{2,30}\.amazonaws\.com(\.cn)?", re.ASCII)


def has_sns_signature(body: bytes, certificates: Sequence[bytes], now: float, tolerance_seconds: float) -> bool:
    """Whether a message is signed by the key of one of the certificates, was made recently, and the certificate is valid.

    Args:
        body: The message as received.
        certificates: In PEM.
        now: Unix time.
        tolerance_seconds: How far its signed time may be from now.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        message = from_json(body)
        signed = _string_to_sign(message)
        signature = base64.b64decode(message["Signature"], validate=True)
        moment = datetime.fromisoformat(message["Timestamp"])
        digest: Any = {"1": hashes.SHA1, "2": hashes.SHA256}[message["SignatureVersion"]]()
    except (ValueError, KeyError, TypeError, binascii.Error):
        return False
    if moment.tzinfo is None or abs(now - moment.timestamp()) > tolerance_seconds:
        return False
    for pem in certificates:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        is_valid = certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp()
        if not is_valid or not isinstance(key, rsa.RSAPublicKey):
            continue
        try:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        except InvalidSignature:
            continue
        return True
    return False


def _string_to_sign(message: Mapping[str, Any]) -> bytes:
    """The signed lines; ``Subject`` only where there is one.

    Raises:
        KeyError: A field is absent, or the type is unknown.
    """
    names = [name for name in _SIGNED[message["Type"]] if name != "Subject" or message.get("Subject") is not None]
    return "".join(f"{name}\n{message[name]}\n" for name in names).encode()


def confirmation_url(message: Any) -> str | None:
    """The address to visit to confirm a subscription; empty where it is not Amazon's, None for any other message."""
    if not isinstance(message, dict) or message.get("Type") != "SubscriptionConfirmation":
        return None
    url = message.get("SubscribeURL")
    if not isinstance(url, str) or len(url) > 2_000:
        return ""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.username is None and parts.port in (None, 443)
    except ValueError:
        return ""
    return url if plain and _HOST.fullmatch(parts.hostname or "") else ""
