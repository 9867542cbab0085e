"""What a power cut may leave of files, by what POSIX promises and no more.

A Disk follows the calls that change files, in their order. Sure is only what was flushed: a file's
content by fsync of the file, a name by fsync of its directory. Of all else any part may be there:

* names made and removed since: each or not, in any combination. A rename is two such changes, but the
  old name never goes without the new one, which every journalling file system gives;
* writes since, of one file: the first so many of them; the last of these may be torn in the middle, or
  have lengthened the file by octets 0 alone.

No machine here: paths are strings, files octets, a state {path: content}.
"""

import itertools


class File:
    """One file: *sure* content, and changes since: ("write", offset, data) or ("truncate", size)."""

    def __init__(self, content=b""):
        self.sure = content
        self.changes = []

    def content(self, count=None, torn=""):
        """With the first *count* changes (None: all); of the last one *torn* "half", "zeros" or all."""
        changes = self.changes[:count]
        data = self.sure
        for number, change in enumerate(changes, 1):
            data = _changed(data, change, torn if number == len(changes) else "")
        return data


def _changed(data, change, torn):
    if change[0] == "truncate":
        return data[:change[1]].ljust(change[1], b"\0")
    _, offset, new = change
    if torn:
        new = new[:len(new) // 2] if torn == "half" else bytes(len(new))
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new):]


class Name:
    """A change of a directory: *path* becomes a name of *file*, or of nothing (None). *needs*: the
    change without which this one is never there."""

    def __init__(self, path, file, needs=None):
        self.path = path
        self.file = file
        self.needs = needs

    def is_in(self, directory):
        return self.path.rpartition("/")[0] == directory


class Disk:
    """Follows ``feed``; ``states`` is what a cut may leave now, ``state()`` what is there without
    one."""

    def __init__(self, files):
        self._sure = {path: File(content) for path, content in files.items()}
        self._now = dict(self._sure)
        self._changes = []

    def feed(self, kind, path, target="", data=b"", offset=0, size=0):
        """One call, which succeeds: create, write, truncate, sync (of a file or directory), rename,
        link, unlink. What happens to files without a name is of no interest."""
        if kind == "create":
            self._name(path, File())
        elif kind in ("rename", "link"):
            made = self._name(target, self._now[path])
            if kind == "rename":
                self._name(path, None, made)
        elif kind == "unlink":
            self._name(path, None)
        elif path not in self._now:
            if kind == "sync":
                self._sync_directory(path)
        elif kind == "write":
            self._now[path].changes.append(("write", offset, data))
        elif kind == "truncate":
            self._now[path].changes.append(("truncate", size))
        elif kind == "sync":
            file = self._now[path]
            file.sure, file.changes = file.content(), []

    def _name(self, path, file, needs=None):
        made = Name(path, file, needs)
        self._changes.append(made)
        _apply(self._now, made)
        return made

    def _sync_directory(self, path):
        sure = {change for change in self._changes if change.is_in(path)}
        sure |= {change.needs for change in sure if change.needs is not None}
        for change in self._changes:
            if change in sure:
                _apply(self._sure, change)
        self._changes = [change for change in self._changes if change not in sure]
        for change in self._changes:
            change.needs = None if change.needs in sure else change.needs

    def state(self):
        """Everything that was done is there."""
        return {path: file.content() for path, file in self._now.items()}

    def unsure(self):
        """What may or may not be there: Names, and (File, number of the change from 1)."""
        files = dict.fromkeys([*self._now.values(), *self._sure.values()])
        return [*self._changes, *[(file, number) for file in files
                                  for number in range(1, len(file.changes) + 1)]]

    def states(self, random, samples=6):
        """States a cut may leave now: all that is unsure is there, none of it, all but one, one alone;
        each write torn, with all else and with nothing else; and *samples* by *random* (a
        random.Random)."""
        unsure = self.unsure()
        kept = [set(unsure), set()]
        kept += [set(unsure) - {one} for one in unsure] + [{one} for one in unsure]
        kept += [{one for one in unsure if random.random() < 0.5}
                 for _ in range(samples if unsure else 0)]
        for some in kept:
            yield self._state(some)
        for one, torn in itertools.product(unsure, ("half", "zeros")):
            if isinstance(one, tuple):
                yield self._state(set(unsure), *one, torn)
                yield self._state({change for change in unsure if isinstance(change, Name)}, *one, torn)

    def _state(self, kept, torn_file=None, torn_at=0, torn=""):
        names = dict(self._sure)
        for change in self._changes:
            if change in kept and (change.needs is None or change.needs in kept):
                _apply(names, change)
        found = {}
        for path, file in names.items():
            if file is torn_file:
                found[path] = file.content(torn_at, torn)
            else:
                count = 0
                while (file, count + 1) in kept:
                    count += 1
                found[path] = file.content(count)
        return found


def _apply(names, change):
    if change.file is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.file
