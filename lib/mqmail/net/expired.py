"""The one exception both shells raise."""


class Expired(Exception):
    """The peer took longer than the deadline."""
