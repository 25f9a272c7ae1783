"""The picture: Prefect flows that join the stages of ``tasks`` into one DAG. Start reading at ``flows/retrain.py``."""
