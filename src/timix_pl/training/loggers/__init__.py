"""Loggers in addition to ``metrics.csv``, one file each. See :class:`timix_pl.training.logged_run.LoggedRun`."""
