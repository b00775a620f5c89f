"""What stands beside the pipeline: predict, doctor."""
