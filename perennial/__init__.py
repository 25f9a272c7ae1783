"""The product around the flows: command line, services, operations."""

import tasks as tasks  # before Prefect, whose telemetry it turns off
