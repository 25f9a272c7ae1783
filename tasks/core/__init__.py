"""The basis of every stage: the stage decorator, the store, rows, errors, progress, child processes."""
