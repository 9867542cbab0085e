"""Messages written into a queue by hand, as mq-queue and mq-send write them."""

import itertools
import os
import time

from mqmail.queue import ids, lines
from mqmail.queue.record import Envelope, Recipient

_numbers = itertools.count()


def new_id(age=0.0):
    """An id that nobody has; *age*: seconds."""
    return ids.make(int((time.time() - age) * 1e6) - next(_numbers) * 20_000, 77)


def path_of(place, id):
    """The path below the home."""
    return f"queue/{place}/{ids.directory(id)}/{id}"


def record(id, *recipients, size=100, more=b""):
    """A record's bytes."""
    given = [Recipient(str(n), "new", one)
             for n, one in enumerate(recipients or ("bob@example.com",), 1)]
    return lines.head(Envelope(id, ids.microseconds(id) / 1e6, size, False, False, "alice@example.org",
                               "", "", {"proto": "esmtp"}), given) + more


def write(path, data, mtime=None):
    """A file of the queue; its directory is made."""
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o640)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def put(place="wait", more=b"", age=0.0, size=100, due=600.0):
    """A whole message; its id."""
    id = new_id(age)
    now = time.time()
    write(path_of("mess", id), b"x" * (size - 2) + b"\r\n", now - age)
    write(path_of(place, id), record(id, size=size, more=more),
          now + due if place == "wait" else now - age)
    return id


def tree(top="queue"):
    """Path to content of every regular file."""
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found
