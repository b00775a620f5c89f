"""Tools beside the pipeline, one for each further command."""
