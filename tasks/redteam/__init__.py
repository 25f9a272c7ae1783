"""Red team: attacks on a model, and the rate at which each kind succeeds."""

from tasks.redteam.config import GarakConfig, RedTeamConfig
from tasks.redteam.task import check_probes, probe_model

__all__ = ["GarakConfig", "RedTeamConfig", "check_probes", "probe_model"]
