"""Shells: they move bytes between sockets and the protocol core."""
