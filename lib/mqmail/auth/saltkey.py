"""run/auth/key: what the salts of logins that are not there are made from. Of such a login SCRAM shows a
salt too, and it must be the same after a restart: else an account is known by a salt that stays."""

from __future__ import annotations

import os

from mqmail.auth.habits import DIRECTORY
from mqmail.base import files, log
from mqmail.base.failure import Failure

PATH = f"{DIRECTORY}/key"
LENGTH = 32             # octets


def load() -> bytes:
    """The key of this home, made if there is none. One that cannot be kept is logged, and lasts as long
    as we do."""
    try:
        key = files.read_bounded(PATH, LENGTH)
        if len(key) == LENGTH:
            return key
        log.event("auth_key_trouble", error=f"{PATH} has {len(key)} octets, not {LENGTH}")
    except FileNotFoundError:
        pass
    except (Failure, OSError) as error:
        log.event("auth_key_trouble", error=str(error))
    key = os.urandom(LENGTH)
    try:
        files.make_directory(DIRECTORY, 0o700)
        files.replace_file(PATH, key, 0o600)
    except OSError as error:
        log.event("auth_key_trouble", error=str(error))
    return key
