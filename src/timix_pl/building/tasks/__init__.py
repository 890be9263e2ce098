"""The tasks that a run can train, one file each."""
