"""``make install`` and ``make uninstall``; not installed itself."""
