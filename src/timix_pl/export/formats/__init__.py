"""The export formats, one file each. An entry writes a folder and returns a :class:`timix_pl.export.writing.Written`."""
