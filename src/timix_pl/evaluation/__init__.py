"""Evaluators: each runs a model over a data set, on all ranks, and returns metrics beside their level of chance."""
