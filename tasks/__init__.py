"""The work: one folder per stage of the pipeline, each with pure modules behind a thin Prefect task.

``contracts`` names what crosses a task boundary, ``core.storage`` is the only reader and writer of dataset files, and
``core.errors`` holds the whole error tree. Stages never import each other, and nothing here imports ``flows``.
"""

import os

WAITING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Threads of a numerical library that wait for each other sleep instead of spinning; no bit of a result changes.

On two cores that other processes want too, the base model's answers to 32 examples took 87 CPU seconds with spinning threads
and 12 with sleeping ones; the audit of 163 rows took 32 and 19.
"""

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Libraries that report on their use send nothing, whoever imports this package, unless the user set it otherwise."""

# Here, because the libraries read it once, when they are loaded, and this module comes before any of them.
for _name, _value in (WAITING_THREADS | TELEMETRY_OFF).items():
    os.environ.setdefault(_name, _value)
