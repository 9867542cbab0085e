"""Immutable records that are cheap to import.

``dataclasses`` costs 12 ms of start-up, more than a whole xmtpd session; ``@value`` costs 0.03 ms a
class, and 0.06 ms more when its first value is made. A class so marked has exactly its annotated fields,
in order, with defaults; two values are equal when class and fields are. Assigning to a field raises
AttributeError.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from _operator import attrgetter

    _INIT = "def __init__(self{args}):\n {body}\n"

    def _refuse(self, name, _value=None):
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def _repr(self):
        fields = ", ".join(f"{n}={getattr(self, n)!r}" for n in self.__slots__)
        return f"{type(self).__name__}({fields})"

    def _comparisons(names):
        """__eq__ and __hash__ by the fields; values are often keys."""
        key = attrgetter(*names) if names else lambda _self: ()

        def _eq(self, other):
            return key(self) == key(other) if type(self) is type(other) else NotImplemented

        def _hash(self):
            return hash(key(self))

        return {"__eq__": _eq, "__hash__": _hash}

    def _replace(self, **changes):
        fields = {n: getattr(self, n) for n in self.__slots__}
        fields.update(changes)
        return type(self)(**fields)

    def value(cls):
        """Class decorator; see the module's text."""
        names = tuple(cls.__dict__.get("__annotations__", {}))
        defaults = {n: cls.__dict__[n] for n in names if n in cls.__dict__}
        body = {k: v for k, v in cls.__dict__.items()
                if k not in defaults and k not in ("__dict__", "__weakref__")}
        body.update(__slots__=names, __match_args__=names, __setattr__=_refuse,
                    __delattr__=_refuse, __repr__=_repr, replace=_replace, **_comparisons(names))
        made = type(cls.__name__, cls.__bases__, body)

        def _first(self, *args, **named):
            made.__init__ = init = _init(made, names, defaults)
            init(self, *args, **named)

        made.__init__ = _first      # most classes are never used in a short life
        return made

    def _init(made, names, defaults):
        """__init__ of class *made*, compiled."""
        scope = {f"_set_{n}": made.__dict__[n].__set__ for n in names}
        scope.update({f"_default_{n}": v for n, v in defaults.items()})
        args = "".join(f", {n}=_default_{n}" if n in defaults else f", {n}" for n in names)
        lines = "; ".join(f"_set_{n}(self, {n})" for n in names) or "pass"
        exec(_INIT.format(args=args, body=lines), scope)  # noqa: S102  field names are identifiers
        return scope["__init__"]

__all__ = ["value"]
