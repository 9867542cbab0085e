"""What the control files say, as sessions want it: made anew at each reload, and never changed."""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.control import reader
from mqmail.control.listeners import given_destinations, unknown_destinations, unmet
from mqmail.control.optionsets import ROLES
from mqmail.policy import known
from mqmail.policy.stages import Stages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqmail.control.listeners import Listener
    from mqmail.control.optionsets import Options
    from mqmail.control.reader import Control
    from mqmail.net.servertls import Context, ServerTls
    from mqmail.policy.facts import Facts
    from mqmail.policy.rewrite import Rewriter
    from mqmail.policy.stages import Check
    from mqmail.prog.xmtpd.services import Services

CONTROL = ("me", "smtpgreeting", "databytes", "maxrecipients", "timeoutsmtpd", "timeoutsession",
           "minrate", "optionsets", "tlscertificates", "tlsclientauthorities")
OF_CLIENTS = (*known.CONTROL, "rewrite", "rewriteheaders")      # what their sessions want besides


class Settings:
    """Of one process, or without *services* to look at only. *old*: those in force until now, whose TLS
    contexts are kept if their files have not changed. Raises BadFile."""

    def __init__(self, control: Control, services: Services | None = None,
                 old: Settings | None = None) -> None:
        self.control = control
        self._tls: ServerTls | None = old._tls if old is not None else None
        self._options: dict[tuple[str, str], Options] = {}
        self._kept = services.kept if services is not None else {}
        self._rewriter: Rewriter | None = None
        checks = [] if services is None else known.make_checks(control, services)
        self.stages = Stages(checks, self._chosen, _failed)

    @property
    def has_tls(self) -> bool:
        """Whether there is a certificate."""
        control = self.control
        return control.is_there("tlscertificates") and bool(control.tlscertificates.files)

    def options(self, role: str, name: str) -> Options:
        """What holds for a session."""
        found = self._options.get((role, name))
        if found is None:
            found = self._options[role, name] = self.control.optionsets.options(role, name)
        return found

    def _chosen(self, facts: Facts) -> tuple[str, ...] | None:
        return self.options(facts.role, facts.options).checks

    def rewriter(self) -> Rewriter:
        """By control/rewrite; made when the first message wants it."""
        if self._rewriter is None:
            from mqmail.policy import rewrite  # dear, and rarely needed
            self._rewriter = rewrite.make(self.control, self._kept)
        return self._rewriter

    def make_tls(self) -> None:
        """Read certificates and keys now, unless those that were read have not changed."""
        control = self.control
        if not self.has_tls:
            self._tls = None
            return
        from mqmail.net.servertls import ServerTls, state_of
        every = [control.optionsets.options(role, name)
                 for role in ROLES for name in ("", *control.optionsets.sets)]
        wishes = [(one.tlsmin, one.clientcert) for one in every]
        what = control.tlscertificates, control.tlsclientauthorities, wishes
        if self._tls is None or self._tls.state != state_of(*what):
            self._tls = ServerTls(*what)

    def context(self, options: Options) -> Context:
        """How to shake hands."""
        if self._tls is None:
            self.make_tls()
        assert self._tls is not None
        return self._tls.context(options.tlsmin, options.clientcert)

    def check_listeners(self, listeners: Sequence[Listener], has_tls: bool = False) -> None:
        """Raises BadFile for what the other files do not have. *has_tls*: others see to TLS."""
        sets = self.control.optionsets
        for text in unmet("control/listeners", listeners, sets, has_tls or self.has_tls):
            raise BadFile(text)
        if given_destinations(listeners):
            for text in unknown_destinations("control/listeners", listeners, self.control.destinations):
                raise BadFile(text)


def load(services: Services | None = None, old: Settings | None = None,
         more: tuple[str, ...] = ()) -> Settings:
    """Settings of the home in the working directory; *more*: further control files. Those OF_CLIENTS
    are read with *services* only. Raises BadFile."""
    clients = OF_CLIENTS if services is not None else ()
    control = reader.load(".", (*CONTROL, *clients, *more))
    if not control.tlsclientauthorities:
        for text in control.optionsets.unvouched("control/optionsets"):
            raise BadFile(text)
    return Settings(control, services, old)


def _failed(check: Check, error: Exception) -> None:
    log.event("check_failed", check=check.name, stage=check.stage,
              error=f"{type(error).__name__}: {error}"[:500])
