"""The layers: who may import whom, and what costs too much at start-up."""

import ast
from pathlib import Path

import pytest

import mqmail

ROOT = Path(mqmail.__file__).parent

# From the bottom up: each may import itself and those before it. "local" is what mq-local and
# mq-lspawn share, "remote" what mq-remote and mq-rspawn do: parts of programs, kept apart for their
# size. "demo" and "install" are make run and make install.
LAYERS = ["base", "mail", "xmtp", "control", "queue", "net", "auth", "local", "remote", "policy", "prog",
          "demo", "install"]
PURE = {"mail", "xmtp"}
MACHINE = {"os", "sys", "socket", "_socket", "select", "time", "asyncio"}
WARM = {"base", "mail", "xmtp", "queue", "control"}  # of programs that are run for one message
DEAR = {
    "re",
    "typing",
    "dataclasses",
    "enum",
    "socket",
    "signal",
    "json",
    "email",
    "asyncio",
    "logging",
    "pathlib",
    "subprocess",
    "argparse",
    "collections",
    "functools",
    "contextlib",
    "docopt",
    "tempfile",
    "shutil",
    "random",
}

MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def layer_of(path):
    return path.relative_to(ROOT).parts[0]


def imports(tree, everywhere):
    """(line, module) of the imports that are run: all of them, or those at module level only."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node.lineno, node.module
            yield from [
                (node.lineno, f"{node.module}.{alias.name}")
                for alias in node.names
                if node.module.startswith("mqmail")
            ]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def found(path, everywhere=True):
    return list(imports(ast.parse(path.read_text(encoding="utf-8")), everywhere))


def test_the_layers_are_those_we_know():
    assert {layer_of(path) for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows(path):
    may = LAYERS[: LAYERS.index(layer_of(path)) + 1]
    for line, module in found(path):
        parts = module.split(".")
        if parts[0] == "mqmail" and len(parts) > 1 and (ROOT / parts[1]).is_dir():
            assert parts[1] in may, f"{name_of(path)} line {line}: {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if layer_of(p) == "prog"], ids=name_of)
def test_no_program_imports_another(path):
    own = path.relative_to(ROOT).parts[1].removesuffix(".py")
    for line, module in found(path):
        parts = module.split(".")
        if parts[:2] == ["mqmail", "prog"] and len(parts) > 2:
            assert parts[2] == own, f"{name_of(path)} line {line}: {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if layer_of(p) in PURE], ids=name_of)
def test_mail_and_protocol_know_no_machine(path):
    for line, module in found(path):
        assert module.split(".")[0] not in MACHINE, f"{name_of(path)} line {line}: {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if layer_of(p) in WARM], ids=name_of)
def test_nothing_dear_at_start_up(path):
    for line, module in found(path, everywhere=False):
        assert module.split(".")[0] not in DEAR, f"{name_of(path)} line {line}: {module}"


def test_this_test_sees_imports():
    tree = ast.parse(
        "from mqmail.xmtp import server\nif TYPE_CHECKING:\n import re\nelse:\n import enum\n"
        "try:\n import json\nexcept E:\n pass\ndef f():\n import time\n"
    )
    assert {module for _, module in imports(tree, True)} == {
        "mqmail.xmtp",
        "mqmail.xmtp.server",
        "enum",
        "json",
        "time",
    }
    assert {module for _, module in imports(tree, False)} == {
        "mqmail.xmtp",
        "mqmail.xmtp.server",
        "enum",
        "json",
    }
