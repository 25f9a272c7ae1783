"""The data dictionary: every record that crosses a task boundary, by part of the life cycle.

All are frozen Pydantic models with ``extra="forbid"``, stored as JSON and about a kilobyte in size: data travels by
reference, never by value. A stage's report carries the data set it produced, so that the next call reads
``scrub.dataset`` and Prefect records the edge. The modules' paths are addresses: stored results name them. Import from
the submodules: what a stage imports is part of its cache key.
"""
