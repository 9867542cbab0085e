"""control/hooks.py: a message is refused for its Subject, and put off when it came from a test host.

The last function to be asked about a header is the first that has seen it all: ``session.header`` is
bytes, and ``session.fields(name)`` has the texts of all fields of a name.
"""

UNWANTED = ("make money fast", "you have won")


def header(session):
    subject = " ".join(session.fields("Subject")).lower()
    for words in UNWANTED:
        if words in subject:
            return "REJECT 554 5.7.1 no thank you"
    if session.fields("X-Test-Host"):
        return "DEFER 450 4.7.1 tests are over for today"
