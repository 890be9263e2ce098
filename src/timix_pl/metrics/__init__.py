"""Metrics as pure functions of tensors. Nothing here depends on a model or a data set."""
