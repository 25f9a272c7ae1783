"""Prefect flows: they join the stages of ``tasks`` into one DAG. Start reading at ``flows/retrain.py``."""

import os

import tasks as tasks  # before Prefect, whose telemetry it turns off

if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker started this process for one run
    from flows.support.output import outlive_readers

    outlive_readers()
