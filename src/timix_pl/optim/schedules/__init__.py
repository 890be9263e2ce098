"""The learning rate schedules, one file each. See :class:`timix_pl.optim.schedule.Schedule`."""
