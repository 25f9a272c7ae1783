"""Guard: filters what goes into a served model and what comes out, by the rules that its training data went through."""

from tasks.guard.config import GuardRulesConfig

__all__ = ["GuardRulesConfig"]
