"""The work: one folder per stage of the pipeline, each with pure modules behind a thin Prefect task.

``contracts`` names what crosses a task boundary, ``storage`` is the only reader and writer of dataset files, ``errors``
holds the whole error tree. Stages never import each other, and nothing here imports ``flows``.
"""
