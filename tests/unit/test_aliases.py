"""control/aliases: destinations as targets, and catch-alls. (Plain lines: test_control_tables.py.)"""

import pytest

from mqmail.base.failure import BadFile
from mqmail.control.aliases import parse_aliases, split_target
from mqmail.control.lines import parse


def aliases(text):
    return parse("control/aliases", text.encode(), parse_aliases, "me.example")


def test_targets_with_a_destination():
    found = aliases("a: @svc:b, @Svc-2:B@Far.example,\n @svc:\n@L.example: @lists:, c\n")
    assert found.targets == {"a": ["@svc:b@me.example", "@Svc-2:B@Far.example", "@svc:"],
                             "@l.example": ["@lists:", "c@me.example"]}
    assert found.used == {"svc": 1, "Svc-2": 1, "lists": 3}
    assert split_target("@svc:") == ("svc", "")
    assert split_target("@svc:a@b.example") == ("svc", "a@b.example")
    assert split_target("a@b.example") == ("", "a@b.example")


def test_a_catch_all_makes_its_domain_ours_and_nobody_an_alias_or_an_owner():
    found = aliases("@L.example: @lists:\nteam@l.example: a\n")
    assert found.domains == {"l.example"}
    assert found.catch_all("l.example") == ["@lists:"]
    assert found.catch_all("x.l.example") is None
    assert found.lookup("x@l.example", found.domains) is None
    assert found.owner("team@l.example", found.domains) is None


@pytest.mark.parametrize(("text", "expected"), [
    ("x: @lists", "line 1: '@lists' names no destination: write @DESTINATION:NAME@DOMAIN"),
    ("x: @:a", "names no destination"),
    ("x: @a.b:c", "names no destination"),
    ("x: @" + "a" * 33 + ":", "names no destination"),
    ("x: y\nz: @new:a", "line 2: '@new:a': aliases cannot send to the destination new: write"),
    ("x: @error:", "cannot send to the destination error"),
    ("x: @remote:a@b.example", "cannot send to the destination remote"),
    ("x: @lists: a", "is not an address"),
    ("x: @lists:@b.example", "is not an address"),
    ("x: @lists:|program", "not an address: a program or file"),
    ("x: @lists:@other:a", "is not an address"),
    ("@: a", "line 1: "),
    ("@a..b: c", "line 1: bad domain"),
    ("@a.example: b\n@A.example: c", "line 2: the alias @a.example is given twice"),
    ("@a.example:", "line 1: the alias @a.example has no targets"),
])
def test_a_mistake_is_named(text, expected):
    with pytest.raises(BadFile) as caught:
        aliases(text)
    assert caught.value.text.startswith("control/aliases line ")
    assert expected in caught.value.text
