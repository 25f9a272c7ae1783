"""Long-running processes: the alert bridge, the guard."""
