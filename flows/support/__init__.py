"""What the pages call: configuration, GPU pools, approvals, run names, requests."""
