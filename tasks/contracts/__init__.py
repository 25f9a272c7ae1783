"""The data dictionary: every record that crosses a task boundary, by part of the life cycle.

All are frozen Pydantic models with ``extra="forbid"``, stored as JSON and about a kilobyte in size: data is passed by
reference, never by value. A stage's report contains its output data set, so that the next call reads ``scrub.dataset``
and Prefect records the edge. Stored results contain the modules' paths, so a move breaks them. Import from the submodules:
the imports of a stage are part of its cache key.
"""
