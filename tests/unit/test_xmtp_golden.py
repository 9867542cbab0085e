"""The dialogues of tests/golden, played against the server core: in bursts, and octet by octet."""

from pathlib import Path

import pytest

from support.dialogue import Told, load

FILES = sorted(Path(__file__).parents[1].joinpath("golden").glob("*.smtp"))


def test_there_are_dialogues():
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(path):
    kind, offer, limits, turns = load(path)
    told = Told(kind, offer, **limits)
    for sent, wanted in turns:
        assert told.say(sent).decode() == wanted.decode(), sent


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue_octet_by_octet(path):
    kind, offer, limits, turns = load(path)
    told = Told(kind, offer, **limits)
    for sent, wanted in turns:
        said = told.server.take_output() + b"".join([told.say(bytes((octet,))) for octet in sent])
        assert said.decode() == wanted.decode(), sent
