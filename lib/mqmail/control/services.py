"""Service directories and units: what s6, daemontools, runit and systemd run each daemon by.

One table says what each daemon is and needs; ``files(supervisor, place)`` makes the texts.
"""

from __future__ import annotations

from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1024 * 1024
STOP = 60       # seconds after TERM before a supervisor may kill; a daemon takes 20
_KEPT = "n20 s10000000"     # of the log of each daemon: files, and the bytes of each

# Capabilities (capabilities(7)) for what root does before it becomes the daemon's account: lock and
# sockets in run/, whoever that belongs to; then the change itself.
_BECOME = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
_INTERNET = ("AF_INET", "AF_INET6")


@value
class Program:
    """A daemon. *memory*: bytes of data that each of its processes may have (RLIMIT_DATA);
    *descriptors*: RLIMIT_NOFILE; *processes*: how many of them there may be, threads counted.
    Under systemd: *writes*, the directories of the home that it writes; *families* of sockets
    besides AF_UNIX; *capabilities* besides _BECOME; *free*: runs programs of users, who may write
    elsewhere and call what they like."""

    name: str
    does: str
    memory: int
    descriptors: int
    processes: int
    after: tuple[str, ...] = ()
    writes: tuple[str, ...] = ("run",)
    families: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: str = ""
    free: bool = False


# They may be started in any order. systemd starts a daemon after those that it calls, and so stops it
# before them.
PROGRAMS = (
    Program("mq-queue", "makes messages durable", 500 * MB, 10000, 300, writes=("queue", "run")),
    Program("mq-resolve", "answers whose an address is", 500 * MB, 6000, 20, families=_INTERNET),
    Program("mq-auth", "says whether a login is true", 500 * MB, 6000, 100, families=_INTERNET),
    Program("mq-bounce", "reports failures to senders", 200 * MB, 6000, 20, after=("mq-queue",)),
    Program("mq-lspawn", "delivers into mailboxes", 1000 * MB, 6000, 4000, writes=("run", "mail"),
            capabilities=("DAC_READ_SEARCH", "KILL"), free=True),
    Program("mq-rspawn", "sends to other hosts", 500 * MB, 12000, 300,
            families=(*_INTERNET, "AF_NETLINK")),
    Program("mq-send", "schedules deliveries", 2000 * MB, 12000, 20, writes=("queue", "run"),
            families=_INTERNET, after=("mq-queue", "mq-resolve", "mq-bounce", "mq-lspawn", "mq-rspawn")),
    Program("xmtpd", "takes mail from the network", 500 * MB, 12000, 300, families=_INTERNET,
            capabilities=("NET_BIND_SERVICE",), options=" --listen",
            after=("mq-queue", "mq-resolve", "mq-auth", "mq-send")),
)


@value
class Place:
    """Absolute paths: the programs' directory, the home, where the files are put, and where each
    daemon's log gets a directory, "" for one in its service directory. *logger*: the account that
    keeps logs, "" for who starts the supervisor."""

    programs: str
    home: str
    target: str
    logs: str = ""
    logger: str = ""

    def log(self, name: str) -> str:
        """The directory with the log of daemon *name*."""
        return f"{self.logs}/{name}" if self.logs else f"{self.target}/{name}/log/main"


@value
class File:
    """What to write. *path* is relative to the target, its first part the service's name."""

    path: str
    text: str
    mode: int = 0o644


def files(supervisor: str, place: Place) -> list[File]:
    """All files for one of SUPERVISORS."""
    return SUPERVISORS[supervisor](place)


# s6, daemontools, runit

def _script(path: str, *lines: str) -> File:
    return File(path, "\n".join(["#!/bin/sh", *lines, ""]), 0o755)


def _run(one: Program, place: Place, options: str = "") -> File:
    """The daemon under its limits. ulimit sets the hard ones: a daemon raises the soft ones to them."""
    return _script(f"{one.name}/run", "exec 2>&1",
                   f"ulimit -d {one.memory // 1024}", f"ulimit -n {one.descriptors}",
                   f"exec {place.programs}/{one.name} --home {place.home}{one.options}{options}")


def _log(one: Program, place: Place, change: str, command: str) -> File:
    """A logger, as its account; *change* runs a command as another account."""
    change = f"{change} {place.logger} " if place.logger else ""
    return _script(f"{one.name}/log/run", f"exec {change}{command} {place.log(one.name)}")


def _s6(place: Place) -> list[File]:
    made = []
    for one in PROGRAMS:
        made += [_run(one, place, " --ready-fd 3"),
                 File(f"{one.name}/notification-fd", "3\n"),
                 File(f"{one.name}/timeout-kill", f"{STOP * 1000}\n"),
                 _log(one, place, "s6-setuidgid", f"s6-log -d 3 T {_KEPT}"),
                 File(f"{one.name}/log/notification-fd", "3\n")]
    return made


def _daemontools(place: Place) -> list[File]:
    return [file for one in PROGRAMS
            for file in (_run(one, place), _log(one, place, "setuidgid", f"multilog t {_KEPT}"))]


def _runit(place: Place) -> list[File]:
    """svlogd reads how much to keep from a file in the log's directory; else it is 10 megabytes."""
    return [file for one in PROGRAMS
            for file in (_run(one, place), _log(one, place, "chpst -u", "svlogd -tt"))]


# systemd

TARGET = "mqmail.target"
_HOMES = ("/home/", "/root/", "/run/user/")


def _systemd(place: Place) -> list[File]:
    target = _unit(Unit=["Description=mqmail, the mail system", "Documentation=man:mqmail(7)",
                         "Wants=" + " ".join([f"{one.name}.service" for one in PROGRAMS])],
                   Install=["WantedBy=multi-user.target"])
    units = [File(f"{one.name}.service", _service(one, place)) for one in PROGRAMS]
    return [File(TARGET, target), *units]


def _unit(**sections: list[str]) -> str:
    return "\n".join([line for name, lines in sections.items() for line in (f"[{name}]", *lines, "")])


def _service(one: Program, place: Place) -> str:
    """The + before kill takes it out of the sandbox, where root cannot signal the daemon's account."""
    after = " ".join(["network.target", *[f"{name}.service" for name in one.after]])
    run = ["Type=notify", f"ExecStart={place.programs}/{one.name} --home {place.home}{one.options}",
           "ExecReload=+/bin/kill -HUP $MAINPID", "KillMode=mixed", "Restart=always", "RestartSec=1",
           f"TimeoutStopSec={STOP}", f"LimitDATA={one.memory}", f"LimitNOFILE={one.descriptors}",
           f"MemoryMax={2 * one.memory}", f"TasksMax={one.processes}"]
    unit = [f"Description=mqmail: {one.does}", f"Documentation=man:{one.name}(8)", f"After={after}",
            f"PartOf={TARGET}", "StartLimitIntervalSec=0"]
    return _unit(Unit=unit, Service=run + _sandbox(one, place))


def _sandbox(one: Program, place: Place) -> list[str]:
    """What the daemon cannot do, whatever becomes of it (systemd.exec(5))."""
    names = " ".join([f"CAP_{name}" for name in (*_BECOME, *one.capabilities)])
    common = [f"CapabilityBoundingSet={names}", "LockPersonality=yes", "ProtectClock=yes",
              "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes",
              "ProtectKernelModules=yes", "ProtectKernelTunables=yes", "RestrictRealtime=yes"]
    if one.free:        # programs in .qmail files may be set-user-id, and use /tmp
        return [*common, "ProtectSystem=full", f"ReadOnlyPaths={place.home}/control {place.home}/queue",
                f"ReadWritePaths={_paths(one, place)}"]
    below_home = f"{place.home}/".startswith(_HOMES) or f"{place.programs}/".startswith(_HOMES)
    return [*common, "NoNewPrivileges=yes", "PrivateDevices=yes", "PrivateTmp=yes",
            f"ProtectHome={'read-only' if below_home else 'yes'}", "ProtectProc=invisible",
            "ProtectSystem=strict", f"ReadWritePaths={_paths(one, place)}",
            "RestrictAddressFamilies=" + " ".join(("AF_UNIX", *one.families)),
            "RestrictNamespaces=yes", "RestrictSUIDSGID=yes", "SystemCallArchitectures=native",
            "SystemCallErrorNumber=EPERM", "SystemCallFilter=@system-service"]


def _paths(one: Program, place: Place) -> str:
    return " ".join([f"{place.home}/{name}" for name in one.writes])


SUPERVISORS: dict[str, Callable[[Place], list[File]]] = {
    "s6": _s6, "daemontools": _daemontools, "runit": _runit, "systemd": _systemd}
