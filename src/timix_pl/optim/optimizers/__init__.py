"""The optimizers, one file each. See :class:`timix_pl.optim.optimizer.OptimizerChoice`."""
