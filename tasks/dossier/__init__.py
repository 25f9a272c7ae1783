"""The dossier: one self-contained page, and its JSON, with all the evidence of a run."""

from tasks.dossier.config import DossierConfig
from tasks.dossier.task import write_check, write_dossier

__all__ = ["DossierConfig", "write_check", "write_dossier"]
