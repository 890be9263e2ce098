"""One module per published layout, each with one function that converts a collection to rows."""
