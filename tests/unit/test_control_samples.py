"""The table of control files, the samples in control/ and mq-control(5) tell the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mqmail.control import reader
from mqmail.control.table import BY_NAME, LINE, NUMBER, TABLE_OF_FILES

TOP = Path(__file__).parents[2]
ROWS = [pytest.param(row, id=row.name) for row in TABLE_OF_FILES]


def test_each_row_has_a_sample():
    assert {path.name for path in (TOP / "control").iterdir()} == {*BY_NAME, "README"}


def manual_items():
    """Name of each file to the text of its entry."""
    text = (TOP / "man/mq-control.5").read_text(encoding="utf-8")
    files = text.partition(".Ss Files\n")[2].partition("\n.Sh ")[0].rpartition("\n.El")[0]
    return {entry.partition("\n")[0]: entry for entry in files.split("\n.It Pa ")[1:]}


def test_each_row_has_an_entry_in_the_manual_in_order():
    assert list(manual_items()) == [row.name for row in TABLE_OF_FILES]


@pytest.mark.parametrize("row", ROWS)
def test_the_manual_agrees_with_the_table(row):
    entry = manual_items()[row.name]
    assert row.help.lower() in entry.lower()
    limits = f" of {row.unit}, {row.lowest} to {row.highest}" if row.kind == NUMBER else ""
    assert f"\nType: {row.kind}{limits}.\n" in entry
    default = {None: "the file is required", "": "empty", "{me}": "the content of\n.Pa me "}.get(
        row.default, row.default
    )
    assert f"\nDefault: {default}.\n" in entry
    readers = entry.partition("\nRead by")[2].replace(".Xr ", "").replace(",", " ").split()
    assert [word for word in readers if word not in ("1", "8", ".")] == (
        ["all", "programs."] if row.readers == "all" else row.readers.split()
    )


def load_with(tmp_path, name, text):
    (tmp_path / "control").mkdir(exist_ok=True)
    for directory in (tmp_path, tmp_path / "control"):
        directory.chmod(0o755)
    shutil.copy(TOP / "control/me", tmp_path / "control/me")
    (tmp_path / "control/destinations").write_text("lists:lmtp:unix:run/lists.sock\n", encoding="utf-8")
    (tmp_path / "control" / name).write_text(text, encoding="utf-8")
    for path in (tmp_path / "control").iterdir():
        path.chmod(0o600 if path.name in BY_NAME and BY_NAME[path.name].secret else 0o644)
    return reader.load(str(tmp_path), [name])[name]


@pytest.mark.parametrize("row", ROWS)
def test_the_sample_holds_the_default(row, tmp_path):
    sample = load_with(tmp_path, row.name, (TOP / "control" / row.name).read_text(encoding="utf-8"))
    if row.default is None or row.name in ("smtpgreeting", "defaultdomain", "plusdomain"):
        return
    default = load_with(
        tmp_path, row.name, row.default.format(me="mail.example.org") or "# empty\n"
    )
    assert sample == default


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE_OF_FILES if row.kind not in (LINE, NUMBER)],
    ids=lambda row: row.name,
)
def test_the_examples_in_comments_are_right(row, tmp_path):
    sample = (TOP / "control" / row.name).read_text(encoding="utf-8")
    examples = [
        line[1:]
        for line in sample.splitlines()
        if line[:1] == "#" and line[1:2] not in ("", " ") or line.startswith("#    ")
    ]
    assert examples
    assert load_with(tmp_path, row.name, "\n".join(examples)) != load_with(
        tmp_path, row.name, "# empty\n"
    )
