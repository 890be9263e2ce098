"""The forms that others load, one file each. An entry writes a folder and returns what :class:`timix_pl.export.writing.Written` holds."""
