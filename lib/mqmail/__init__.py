"""mqmail: one queue that speaks one protocol."""

__version__ = "0.1.0"
