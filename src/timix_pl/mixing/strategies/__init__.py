"""The strategies, one file each: how images are mixed. See :class:`timix_pl.mixing.mixer.Mixer`."""
