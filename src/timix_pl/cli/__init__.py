"""The commands: thin fronts over ``timix_pl.config`` and the rooms below it."""
