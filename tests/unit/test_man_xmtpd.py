"""xmtpd(8) explains every refusal that the code can say, and no other."""

import ast
import re
from pathlib import Path

from support.home import ROOT

CODE = ROOT / "lib" / "mqmail"
PLACES = ("xmtp", "policy", "prog/xmtpd", "prog/mq_queue.py", "prog/mq_auth.py", "control/resolve.py",
          "auth/talk.py", "net/converse.py", "net/service.py")
_STATUS = re.compile(r"[45]\.\d+\.\d+")


def modules():
    for place in PLACES:
        path = CODE / place
        yield from sorted(path.glob("*.py")) if path.is_dir() else [path]


def said():
    """``451 4.3.2`` of each ``reply(451, "4.3.2", …)``, and of what else names both together."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
            words = [word.value for word in words if isinstance(word, ast.Constant)]
            codes = [word for word in words if type(word) is int and 400 <= word < 600]
            states = [word for word in words if type(word) is str and _STATUS.fullmatch(word)]
            yield from [f"{code} {state}" for code, state in zip(codes, states, strict=False)]
    yield "452 4.3.4"           # policy/header.py makes it of others


def explained():
    text = Path(ROOT / "man/xmtpd.8").read_text(encoding="utf-8")
    return re.findall(r"^\.It (\d{3} \d\.\d+\.\d+)$", text.partition(".Ss Replies\n")[2], re.MULTILINE)


def test_each_refusal_is_explained_once_in_order():
    found = set(said())
    assert len(found) > 40
    assert explained() == sorted(found)
