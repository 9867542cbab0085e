"""control/hooks.py: the members of a list, and who has logged in, may write to it; nobody else.

/etc/list-members has one address a line. It is read once: HUP to mq-start reads it anew.
"""

LIST = "team@example.org"

with open("/etc/list-members", encoding="utf-8") as file:
    MEMBERS = {line.strip().lower() for line in file if line.strip()}


def rcpt(session):
    if session.recipient.lower() != LIST or session.login:
        return None
    if (session.sender or "").lower() in MEMBERS:
        return None
    return "550 5.7.1 only members may write to this list"
