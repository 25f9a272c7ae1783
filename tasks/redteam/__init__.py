"""Red team: what a model gives away, obeys, refuses, treats unequally or makes up, when it is asked to."""

from tasks.redteam.config import GarakConfig, RedTeamConfig
from tasks.redteam.task import probe_model

__all__ = ["GarakConfig", "RedTeamConfig", "probe_model"]
