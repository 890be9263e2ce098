"""Where metrics go beside ``metrics.csv``, one file for each logger. See :class:`timix_pl.training.logged_run.LoggedRun`."""
