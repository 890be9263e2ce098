"""One module per published layout; each has one function that turns a collection into rows."""
