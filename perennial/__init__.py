"""The product around the flows: command line, services, operations."""
