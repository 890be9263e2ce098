"""Pure functions from tensors to figures; nothing here knows a model or a data set."""
