"""The home: which one is meant, and going there."""

from __future__ import annotations

import os

from mqmail.base.failure import Temporary
from mqmail.base.program import describe

HOME = "/var/mqmail"


def chosen(option: str | None = None) -> str:
    """What the option --home says, else MQMAIL_HOME, else HOME."""
    return option or os.environ.get("MQMAIL_HOME") or HOME


def enter(home: str) -> None:
    """Work in *home*; later paths are relative to it. Raises Temporary when it is none."""
    try:
        os.chdir(home)
        os.stat("control/me")
    except OSError as error:
        raise no_home(home, error) from None


def no_home(home: str, error: OSError) -> Temporary:
    """For raising: *home* is none, because of *error*."""
    return Temporary(f"{home} is no mqmail home ({describe(error)}): make one with"
                     f" mq-setup --home {home}")
