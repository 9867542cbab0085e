"""Control files: one table of all of them, and the reader."""
