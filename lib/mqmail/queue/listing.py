"""Reading the queue for people and tools that are no part of mail's way: no locks, nothing is changed.

Messages come and go meanwhile: what has vanished when it is looked at is left out. The process works in
the home, as for store.
"""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile
from mqmail.base.files import read_bounded
from mqmail.base.program import describe
from mqmail.base.value import value
from mqmail.queue import paths, store
from mqmail.queue import record as records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.queue.record import Record

BAD = "bad"


@value
class Listed:
    """A message. *place*: new, wait, hold or bad; *record*: None when it cannot be understood; *error*:
    what is wrong with it, or ""."""

    id: str
    place: str
    record: Record | None
    error: str


def everything() -> Iterator[Listed]:
    """All messages, the oldest first, and after them what is in ``bad``. Raises OSError when a
    directory of the queue cannot be read."""
    places: dict[str, str] = {}
    for place in paths.STATES:
        for id, _ in store.scan_names(place, stat=False):
            places[id] = place
    for id in sorted(places):
        found = _look_up(id, places[id])
        if found is not None:
            yield found
    yield from _bad("")


def one(id: str) -> Iterator[Listed]:
    """What there is of message *id*: nothing, one, or several in ``bad``."""
    found = _look_up(id, paths.STATES[0])
    if found is not None:
        yield found
    yield from _bad(id)


def _look_up(id: str, first: str) -> Listed | None:
    """The message where it was seen, or where it has gone since. None: it is gone, or was never
    acknowledged."""
    for place in (first, *[state for state in paths.STATES if state != first]):
        try:
            data = store.read(place, id)
        except FileNotFoundError:
            continue
        except OSError as error:
            return Listed(id, place, None, describe(error))
        except BadFile as error:
            return Listed(id, place, None, error.text)
        found = _parse(id, place, data)
        return found if found.record or found.error else None
    return None


def _bad(prefix: str) -> Iterator[Listed]:
    for name in sorted(os.listdir("queue/bad")):
        if name.startswith(prefix):
            try:
                found = _parse(name, BAD, read_bounded(f"queue/bad/{name}", records.LONGEST))
            except FileNotFoundError:
                continue
            except OSError as error:
                found = Listed(name, BAD, None, describe(error))
            except BadFile as error:
                found = Listed(name, BAD, None, error.text)
            if found.record is None and not found.error:
                found = Listed(name, BAD, None, f"queue/bad/{name}: no ok line")
            yield found


def _parse(id: str, place: str, data: bytes) -> Listed:
    """Neither record nor error: it was never acknowledged."""
    name = f"queue/{place}/{id}"
    try:
        record = records.parse(data, name)
    except BadFile as error:
        return Listed(id, place, None, error.text)
    envelope = record.envelope
    if envelope is not None and envelope.id != id.partition(".")[0]:
        return Listed(id, place, record, f"{name}: says it is {envelope.id}")
    return Listed(id, place, record if envelope else None, "")
