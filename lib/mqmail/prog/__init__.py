"""One module (or package) per executable."""
