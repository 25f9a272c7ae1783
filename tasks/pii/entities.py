"""The kinds of personal data."""

from __future__ import annotations

ENTITIES = frozenset(
    {
        "AGE",
        "BANK_ACCOUNT",
        "CREDIT_CARD",
        "CRYPTO",
        "DATE_OF_BIRTH",
        "DATE_TIME",
        "DEVICE_ID",
        "EMAIL_ADDRESS",
        "ES_NIE",
        "ES_NIF",
        "HEALTH_PLAN_ID",
        "IBAN_CODE",
        "ID_NUMBER",
        "IN_PAN",
        "IP_ADDRESS",
        "IT_FISCAL_CODE",
        "KNOWN_VALUE",
        "LICENSE_PLATE",
        "LOCATION",
        "MAC_ADDRESS",
        "MEDICAL_LICENSE",
        "MEDICAL_RECORD_NUMBER",
        "NRP",
        "ORGANIZATION",
        "PERSON",
        "PHONE_NUMBER",
        "POSTCODE",
        "PROPER_NOUN",
        "STREET_ADDRESS",
        "TAX_ID",
        "UK_NINO",
        "URL",
        "USERNAME",
        "US_DRIVER_LICENSE",
        "US_ITIN",
        "US_MBI",
        "US_PASSPORT",
        "US_SSN",
        "VIN",
    }
)
"""What the detectors call the values that they find."""
