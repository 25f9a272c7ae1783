"""Processes that stay up: the alert bridge, the guard."""
