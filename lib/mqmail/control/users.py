"""users: the virtual mailboxes below mail/."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import domain as check_domain
from mqmail.mail.address import LONGEST_LOCAL, domain_key, domain_of, local_of, lower_ascii, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

LONGEST_DIRECTORY = 64
_DIRECTORY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+")
_CATCH_ALL = ""


@value
class Users:
    """Domain (as domain_key() has it) to local part, in lower case, to directory. Local part "" is the
    catch-all."""

    domains: dict[str, dict[str, str]]

    def lookup(self, address: str) -> str | None:
        """The directory of exactly *address* (any case of ASCII letters), None without a line."""
        names = self.domains.get(domain_of(address))
        return names.get(lower_ascii(local_of(address))) if names else None


def check_directory(text: str) -> str:
    """One name below mail/."""
    if not text or text[0] == "." or len(text) > LONGEST_DIRECTORY or not _DIRECTORY.issuperset(text):
        raise ValueError(f"{text!a} cannot be a directory below mail/: write letters, digits and . _ - +"
                         f" (not . first, at most {LONGEST_DIRECTORY})")
    return text


def parse_users(lines: Lines, _me: str) -> Users:
    """Lines ``ADDRESS:DIRECTORY``, ``ADDRESS``, ``@domain:DIRECTORY``. Two addresses share a mailbox
    only when the later line names its directory."""
    domains: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for line in lines:
        address, directory = _split(line)
        local, domain = _parts(address)
        if not directory:
            directory = check_directory(local) if local else ""
            if not directory or directory in taken:
                raise ValueError(f"{line!a}: {_why(directory)}: write {address}:DIRECTORY")
        taken.add(directory)
        names = domains.get(domain)
        if names is None:
            names = domains[check_domain(domain)] = {}
        local = lower_ascii(local)
        if local in names:
            raise ValueError(f"{address!a} is given twice: remove one of the lines")
        names[local] = local if local == directory else directory   # one string for both, if it can be
    return Users(domains)


def _why(directory: str) -> str:
    return f"mail/{directory} is another address's mailbox" if directory else "no directory"


def _split(line: str) -> tuple[str, str]:
    """(address, directory); the directory is "" when the line has none."""
    address, colon, directory = line.rpartition(":")
    if not colon or directory[-1:] in ("]", '"') or "@" in directory:
        return line, ""
    return address, check_directory(directory)


def _parts(address: str) -> tuple[str, str]:
    """(local part, key of the domain); the local part of ``@domain`` is ""."""
    if address[:1] == "@":
        return _CATCH_ALL, domain_key(address[1:])
    try:
        local, domain = split(address)
    except ValueError as error:
        raise ValueError(f"{address!a} is not an address ({error}): write NAME@DOMAIN") from None
    if not local or len(local.encode()) > LONGEST_LOCAL:
        raise ValueError(f"{address!a}: before the @ stand 1 to {LONGEST_LOCAL} characters")
    return local, domain_key(domain)
