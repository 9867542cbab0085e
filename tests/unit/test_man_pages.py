"""Each program has a manual whose synopsis names the options that the program's own help does."""

import os
import re
import shutil
import subprocess

import pytest

from support.home import ROOT

PROGRAMS = sorted([path.name for path in (ROOT / "bin").iterdir()])
PAGES = sorted((ROOT / "man").iterdir())
MODES = ("mailq", "newaliases")         # of sendmail
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_MACROS = ("Ar", "Ns", "Op", "Pf", "Oo", "Oc")


def section(page, name):
    """The lines of a section, in mdoc."""
    text = page.read_text(encoding="utf-8")
    return text.partition(f".Sh {name}\n")[2].partition("\n.Sh ")[0].splitlines()


def page_of(program):
    """The manual whose NAME section says *program*."""
    found = [page for page in PAGES if page.suffix != ".5" and any(
        [line.startswith(".Nm ") and program in line.split()[1:] for line in section(page, "NAME")])]
    assert len(found) == 1, found
    return found[0]


def options_of(page):
    """The options in the SYNOPSIS: the words behind each Fl."""
    found = set()
    for line in section(page, "SYNOPSIS"):
        words = line.lstrip(".").split()
        is_option = False
        for word in words:
            if word == "Fl" or word in _MACROS:
                is_option = word == "Fl"
            elif is_option and word not in ("|", "-"):
                found.add(f"-{word}")
    return found


def help_of(program):
    done = subprocess.run([ROOT / "bin" / program, "--help"], capture_output=True, text=True,
                          check=False, timeout=30, env={"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", [one for one in PROGRAMS if one not in MODES])
def test_synopsis_and_help_agree(program):
    usage = help_of(program).partition("Usage:")[2].partition("\n\n")[0]
    assert usage
    assert set(_OPTION.findall(usage)) == options_of(page_of(program))


@pytest.mark.parametrize("program", MODES)
def test_a_mode_of_sendmail_has_a_page(program):
    """Its help is sendmail's."""
    assert help_of(program) == help_of("sendmail")
    assert options_of(page_of(program)) == {"--home"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_clean(page):
    """As the formatter sees it; and every page it names that is ours exists."""
    names = {one.name for one in PAGES}
    for name, number in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(encoding="utf-8"), re.MULTILINE):
        if name.startswith(("mq-", "xm", "dot-", "mailq", "newaliases", "sendmail")):
            assert f"{name}.{number}" in names
    if shutil.which("mandoc") is None:
        pytest.skip("not installed: mandoc")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True,
                          text=True, check=False)
    assert done.stdout == ""
