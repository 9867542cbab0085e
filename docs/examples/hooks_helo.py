"""control/hooks.py: nobody but us says our name, and nobody is called localhost.

A stranger whose HELO is our own name or address is lying. This is looked at when HELO comes, and
answered when the client names a recipient.
"""

OURS = {"mail.example.org", "example.org", "localhost", "[192.0.2.1]"}


def helo(session):
    if not session.local and not session.relay and not session.login and session.helo.lower() in OURS:
        return "550 5.7.1 that is not your name"
