"""What every stage stands on: how a function becomes a task, the store, rows, errors, progress, child processes."""
