"""make install and uninstall, pip install, and the programs that they put somewhere."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.home import ME, ROOT, Home, run

pytestmark = pytest.mark.e2e
PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))
PROGRAMS = sorted([path.name for path in (ROOT / "bin").iterdir()])
CLEAN = {"PATH": "/usr/bin:/bin"}       # no PYTHONPATH, no virtual environment


def make(*words, check=True):
    """make with *words*; what it said."""
    done = subprocess.run(["make", "--no-print-directory", f"PYTHON={sys.executable}", *words], cwd=ROOT,
                          env={**CLEAN, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
                          stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, check=False,
                          timeout=100)
    assert (done.returncode == 0) == check, done.stdout
    return done.stdout


def install(prefix, *words, **options):
    return make("install", f"PREFIX={prefix}", f"PACKAGES={PACKAGES}", *words, **options)


def everything(path):
    """All that is below *path*."""
    return sorted([str(one.relative_to(path)) for one in path.rglob("*")])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A prefix with everything in it; others can get there."""
    top = tmp_path_factory.mktemp("installed")
    for path in (top, top.parent):
        path.chmod(0o755)
    install(top / "usr")
    return top / "usr"


def help_of(path, **environment):
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False, cwd="/",
                          env={**CLEAN, **environment}, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), path
    return done.stdout


def test_all_programs_are_there_and_work(installed, tmp_path):
    assert sorted([path.name for path in (installed / "bin").iterdir()]) == PROGRAMS
    wrong = tmp_path / "mqmail"
    wrong.mkdir()
    (wrong / "__init__.py").write_text("1/0")
    for name in PROGRAMS:
        text = help_of(installed / "bin" / name, PYTHONPATH=str(tmp_path))
        assert "Usage:" in text
        (tmp_path / name).symlink_to(installed / "bin" / name)
        assert help_of(tmp_path / name) == text


def test_scripts_name_interpreter_and_library(installed):
    first, *rest = (installed / "bin/mq-send").read_text().splitlines()
    assert first == f"#!{os.path.realpath(sys.executable)} -IS"
    assert f"sys.path[:0] = ['{installed}/lib/mqmail']" in rest
    names = [path.name for path in (installed / "lib/mqmail/mqmail").iterdir()]
    assert "prog" in names
    assert not {"demo", "install"} & set(names)


def test_bytecode_is_there_and_in_use(installed):
    library = installed / "lib/mqmail"
    for path in library.rglob("*.py"):
        compiled = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
        assert compiled.stat().st_size, path
    done = subprocess.run([sys.executable, "-ISBv", "-c",
                           f"import sys; sys.path[:0] = ['{library}']; import mqmail.prog.mq_send"],
                          capture_output=True, text=True, check=True, timeout=60)
    assert f" matches {library}/mqmail/prog/mq_send/__init__.py" in done.stderr
    assert f"code object from {library}" not in done.stderr


def test_nobody_else_can_write_anything(installed):
    for path in [installed, *installed.rglob("*")]:
        mode = path.lstat().st_mode
        assert mode & 0o022 == 0, path
        is_program = stat.S_ISDIR(mode) or path.parent == installed / "bin"
        assert stat.S_IMODE(mode) == (0o755 if is_program else 0o644), path


def test_manuals_and_samples_are_there(installed):
    for page in (ROOT / "man").iterdir():
        copy = installed / f"share/man/man{page.suffix[1:]}" / page.name
        assert copy.read_bytes() == page.read_bytes()
    assert (installed / "share/doc/mqmail/control/me").exists()


def test_mail_is_delivered_by_what_was_installed(installed, tmp_path):
    home = Home("alice", root=installed)
    try:
        home.start()
        home.deliver(f"alice@{ME}")
        home.run("mq-inject", text=f"To: alice@{ME}\nSubject: two\n\nhello\n".encode())
        (tmp_path / "sendmail").symlink_to(installed / "bin/sendmail")
        subprocess.run([tmp_path / "sendmail", f"alice@{ME}"], input=b"Subject: three\n\nhello\n",
                       env={**CLEAN, "MQMAIL_HOME": str(home.path)}, check=True, timeout=60)
        assert len(home.wait_for("alice", 3)) == 3
        home.wait_until_empty()
        for name in ("mailq", "newaliases"):
            (tmp_path / name).symlink_to(installed / "bin" / name)
        listed = subprocess.run([tmp_path / "mailq"], capture_output=True, check=True, timeout=60,
                                env={**CLEAN, "MQMAIL_HOME": str(home.path)})
        assert listed.stdout == b"Mail queue is empty\n"
        before = everything(home.path)
        assert "upgraded" in install(installed)
        assert everything(home.path) == before
        assert home.process.poll() is None
        home.deliver(f"alice@{ME}")
        home.wait_for("alice", 4)
    finally:
        home.remove()


def test_uninstall_leaves_nothing_and_nobody_elses_files(tmp_path):
    prefix = tmp_path / "usr"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/other").write_text("")
    before = everything(tmp_path)
    install(prefix)
    (prefix / "share/doc/mine").mkdir()
    (prefix / "lib/mqmail/mine").write_text("")
    make("uninstall", f"PREFIX={prefix}")
    added = ["usr/lib", "usr/lib/mqmail", "usr/lib/mqmail/mine", "usr/share", "usr/share/doc",
             "usr/share/doc/mine"]
    assert everything(tmp_path) == sorted(before + added)
    assert "there is no mqmail below" in make("uninstall", f"PREFIX={prefix}", check=False)


def test_destdir_is_where_files_go_and_in_none_of_them(tmp_path):
    top = tmp_path / "package"
    install("/opt/mqmail", f"DESTDIR={top}")
    assert [path.name for path in top.iterdir()] == ["opt"]
    for path in top.rglob("*"):
        assert path.is_dir() or os.fsencode(tmp_path) not in path.read_bytes(), path
    assert "sys.path[:0] = ['/opt/mqmail/lib/mqmail']" in (top / "opt/mqmail/bin/xmtpd").read_text()
    make("uninstall", "PREFIX=/opt/mqmail", f"DESTDIR={top}")
    assert everything(top) == []


def test_an_upgrade_removes_what_is_no_longer_ours(tmp_path):
    install(tmp_path)
    manifest = tmp_path / "lib/mqmail/manifest"
    gone = tmp_path / "lib/mqmail/mqmail/gone/old.py"
    gone.parent.mkdir()
    gone.write_text("")
    manifest.write_text(manifest.read_text() + f"{gone}\n{gone.parent}/\n")
    (tmp_path / "bin/mq-send").write_text("#!/bin/sh\nexit 1\n")
    assert "upgraded" in install(tmp_path)
    assert not gone.parent.exists()
    help_of(tmp_path / "bin/mq-send")
    make("uninstall", f"PREFIX={tmp_path}")
    assert everything(tmp_path) == []


def test_another_systems_programs_are_not_overwritten(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mailq").write_text("postfix\n")
    text = install(tmp_path, check=False)
    assert f"move them away, or name another PREFIX: {tmp_path}/bin/mailq" in text
    assert everything(tmp_path) == ["bin", "bin/mailq"]


def test_without_the_dependencies_nothing_is_installed(tmp_path):
    (tmp_path / "empty").mkdir()
    text = install(tmp_path / "usr", f"PACKAGES={tmp_path}/empty", check=False)
    assert f"{tmp_path}/empty has no package dnspython: run make first" in text
    assert everything(tmp_path) == ["empty"]


def test_the_systems_packages_are_used_where_they_are(tmp_path):
    """Which it may have or not."""
    interpreter = os.path.realpath(sys.executable)
    known = subprocess.run([interpreter, "-I", "-c", "import dns, docopt, idna, uvloop"],
                           capture_output=True, check=False).returncode == 0
    text = install(tmp_path, "PACKAGES=system", check=known)
    if known:
        assert not (tmp_path / "lib/mqmail/uvloop").exists()
        help_of(tmp_path / "bin/mq-route")
    else:
        assert "apt-get install python3-" in text


@pytest.mark.parametrize("prefix", ["usr", "/usr/../usr", "/has space"])
def test_a_prefix_that_cannot_be_is_refused(prefix, tmp_path):
    install(prefix, f"DESTDIR={tmp_path}", check=False)
    assert everything(tmp_path) == []


# --- pip ---

@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What pip is given, without anything that was built there."""
    top = tmp_path_factory.mktemp("checkout")
    for name in ("bin", "lib", "man"):
        shutil.copytree(ROOT / name, top / name,
                        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, top)
    return top


@pytest.fixture(scope="module", params=["venv", "prefix"])
def by_pip(request, checkout, tmp_path_factory):
    """A directory with bin/, made by pip without the network: a virtual environment, and any prefix."""
    top = tmp_path_factory.mktemp(request.param) / "it"
    if request.param == "venv":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", top], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
                    "--no-build-isolation", "--ignore-installed", "--no-warn-script-location",
                    "--prefix", top, checkout], check=True, env={**CLEAN, "HOME": str(top)}, timeout=100)
    packages = top / Path(PACKAGES).relative_to(Path(PACKAGES).parents[2])
    for name in ("dns", "docopt.py", "idna", "uvloop"):
        (packages / name).symlink_to(Path(PACKAGES, name))
    return top


def test_pip_makes_working_programs(by_pip, tmp_path):
    python = Path(sys.executable)
    assert set(PROGRAMS) <= {path.name for path in (by_pip / "bin").iterdir()}, "are all in setup.cfg?"
    assert (by_pip / "share/man/man8/mq-send.8").exists()
    for name in PROGRAMS:
        (tmp_path / name).symlink_to(by_pip / "bin" / name)
        assert "Usage:" in help_of(tmp_path / name, PATH=f"{python.parent}:/usr/bin:/bin")


def test_what_pip_installed_sets_up_a_home(by_pip, tmp_path):
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    words = ("--home", str(tmp_path / "home"))
    run("mq-setup", *words, "--me", ME, "--user", "alice", root=by_pip, env=environment)
    shown = run("mq-showctl", *words, "--value", "users", root=by_pip, env=environment).stdout
    assert b"alice@" in shown
