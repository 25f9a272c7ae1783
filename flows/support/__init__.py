"""Helpers of the flows: configuration, GPU pools, approvals, run names, requests."""
