"""mq-log(5) lists every event that the code logs, with its fields, and no other."""

import ast
from pathlib import Path

from mqmail.control.loglevels import EVENTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "man" / "mq-log.5"
CODE = ROOT / "lib" / "mqmail"


def is_log_call(node):
    """``log.event(…)``, or who hands its arguments on: ``_log``, or ``log`` with the session."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return False
    name, owner = node.func.attr, node.func.value
    return isinstance(owner, ast.Name) and (owner.id, name) in (
        ("log", "event"), ("self", "_log"), ("self", "log"), ("dialogue", "log"))


def names_of(node, tree):
    """The events that an expression can name: a text, or what a dictionary of the module holds."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Dict):
        return [value.value for value in node.values]
    if isinstance(node, ast.Subscript):
        return names_of(node.value, tree)
    if isinstance(node, ast.Name):
        return [name for one in ast.walk(tree) if isinstance(one, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == node.id for t in one.targets)
                and isinstance(one.value, ast.Dict | ast.Subscript)
                for name in names_of(one.value, tree)]
    return []


def logged():
    """Event to its fields, as the code has them."""
    found = {}
    for path in sorted(CODE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for call in (node for node in ast.walk(tree) if is_log_call(node)):
            for name in names_of(call.args[0], tree):
                fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
                fields |= {"session"} if call.func.attr == "log" else set()
                found.setdefault(name, set()).update(fields)
    return found


def described():
    """Event to its fields, as the page has them."""
    found = {}
    events = PAGE.read_text().partition(".Sh EVENTS\n")[2].partition(".Sh EXAMPLES\n")[0]
    for line in events.splitlines():
        if line.startswith(".It Cm "):
            name, _, fields = line.removeprefix(".It Cm ").partition(" Ar ")
            assert name not in found, f"{name} is described twice"
            found[name] = set(fields.split())
    return found


def levels():
    """Level to the events that the page says have it."""
    text = PAGE.read_text().partition(".Ss Levels\n")[2].partition("\n.El")[0]
    items = [item.partition("\n") for item in text.replace(",", " ").split(".It Cm ")[1:]]
    return {level: set(rest.partition(":\n")[2].strip(".\n").split()) for level, _, rest in items}


def test_each_event_has_a_level_which_the_page_tells():
    assert levels() == {level: set(events) for level, events in EVENTS.items()}
    assert sorted([event for events in EVENTS.values() for event in events]) == sorted(logged())


def test_the_page_lists_the_events_of_the_code():
    assert sorted(described()) == sorted(logged())


def test_the_page_lists_their_fields():
    assert described() == logged()
