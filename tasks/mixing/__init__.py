"""Several prepared data sets become one to train on, each row as often as its source's weight says."""

from tasks.mixing.task import mix

__all__ = ["mix"]
