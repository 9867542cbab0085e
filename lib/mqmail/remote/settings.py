"""What the workers and the command take from control/."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.credentials import Credentials
from mqmail.control.remote import STEPS
from mqmail.net.session import Timeouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.reader import Control

CONTROL = ("me", "helohost", "timeoutconnect", "timeoutremote", "remotetimeouts", "remotesessions",
           "credentials", "tlsauthorities")


@value
class Settings:
    """*name* for EHLO; *connect*: seconds; *authorities*: a PEM file or "" for the system's; *uses*,
    *age*: transactions over a session and its seconds; *probe*: whether RSET goes first when it is used
    again."""

    name: str
    connect: float
    timeouts: Timeouts
    credentials: Credentials
    authorities: str
    uses: int
    age: float
    probe: bool


def from_control(control: Control) -> Settings:
    """By the control files CONTROL."""
    steps, sessions = control.remotetimeouts, control.remotesessions
    timeouts = Timeouts(**{name: float(getattr(steps, name)) for name in STEPS},
                        most=float(control.timeoutremote))
    return Settings(control.helohost, float(control.timeoutconnect), timeouts, control.credentials,
                    control.tlsauthorities, sessions.uses, float(sessions.age), sessions.probe)
