"""What was never acknowledged: bodies and records that a crash left, which mq-send removes."""

from __future__ import annotations

import os

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.queue import paths, record, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STALE = 36 * 3600.0                # seconds after which what nobody acknowledged is removed


def remove_orphans(now: float, age: float = STALE) -> Iterator[str]:
    """Remove what was never acknowledged and is older than *age* seconds (its writer may live until
    then): records without ``ok``, and bodies that no record, not even a bad one, belongs to. A generator
    of small steps, so that others get their turn; each yields the path it removed or ""."""
    for bucket in paths.BUCKETS:
        for name in _older(f"queue/new/{bucket}", now - age):
            yield _remove_unacknowledged(name)
        for name in _older(f"queue/mess/{bucket}", now - age):
            yield "" if _has_record(name) else _remove_logged(paths.path("mess", name))
        for path in _copies(f"queue/wait/{bucket}", now - age):
            yield _remove_logged(path)
        yield ""


def _older(directory: str, before: float) -> list[str]:
    names = []
    for entry in paths.entries(directory):
        try:
            if entry.stat(follow_symlinks=False).st_mtime < before:
                names.append(entry.name)
        except FileNotFoundError:
            continue
    return names


def _copies(directory: str, before: float) -> list[str]:
    """What take_over left when it was killed; a complete one has the time of the next attempt."""
    try:
        found = [f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(paths.COPY)]
    except FileNotFoundError:
        return []
    return [path for path in found if os.lstat(path).st_mtime < before]


def _remove_unacknowledged(id: str) -> str:
    try:
        if record.parse(store.read("new", id)).complete:
            return ""
    except (OSError, BadFile):
        return ""
    return _remove_logged(paths.path("new", id))


def _has_record(id: str) -> bool:
    return any(os.path.lexists(paths.path(s, id)) for s in paths.STATES) or store.is_set_aside(id)


def _remove_logged(path: str) -> str:
    paths.discard(path)
    log.event("queue_orphan_removed", path=path)
    return path
