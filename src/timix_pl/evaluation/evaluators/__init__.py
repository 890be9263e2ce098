"""The evaluations, one file each. See :class:`timix_pl.evaluation.evaluator.Evaluator`."""
