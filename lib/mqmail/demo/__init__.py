"""``make run``: a mail system to look at, for people who see mqmail for the first time."""
