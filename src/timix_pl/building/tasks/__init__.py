"""What a run may train, one file for each task."""
