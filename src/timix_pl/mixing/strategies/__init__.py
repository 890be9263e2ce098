"""The mixing strategies, one file each. See :class:`timix_pl.mixing.mixer.Mixer`."""
