"""control/hooks.py: programs for Windows are refused, and so is a message from nobody to many.

An attachment in base64 that is a program for Windows begins with the same letters each time. What
``session.body`` holds is enough: the first 64 KiB behind the header, which is all of most messages.
"""

PROGRAM = b"\nTVqQAAMAA"


def body(session):
    if PROGRAM in session.body:
        return "552 5.7.0 no programs, please"


def rcpt(session):
    if session.sender == "" and session.recipients:
        return "550 5.7.1 a report goes to one recipient"
