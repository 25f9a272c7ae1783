"""The sections of the dossier's page, each from the evidence of the run and the data read for it."""
