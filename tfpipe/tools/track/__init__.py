"""`tfpipe track`: a finished run as an entry of an MLflow server, with its model."""
