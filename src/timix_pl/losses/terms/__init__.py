"""Further terms of the loss, one file each. See :class:`timix_pl.losses.term.LossTerm`."""
