"""Who believes clients' certificates says who vouches for them."""

import os

import pytest

from mqmail.base.failure import BadFile
from mqmail.control.listeners import Listener
from mqmail.prog.xmtpd import settings


@pytest.fixture(autouse=True)
def control(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.umask(0o022)
    (tmp_path / "control").mkdir()

    def write(**files):
        for name, text in files.items():
            (tmp_path / "control" / name).write_text(f"{text}\n")

    write(me="mail.example.org")
    return write


@pytest.mark.parametrize("option", ["auth=plain,external", "clientcert=require"])
def test_authorities_have_to_be_named(control, option):
    control(optionsets=f"certs {option}")
    with pytest.raises(BadFile, match=r"control/optionsets: certs has .*control/tlsclientauthorities"):
        settings.load()
    control(tlsclientauthorities="/etc/authorities.pem")
    assert settings.load().control.optionsets.has("certs")


def test_asking_is_not_for_mx(control):
    control(optionsets="certs clientcert=ask tls=may")
    found = settings.load()
    with pytest.raises(BadFile, match="clientcert=ask is not for mx"):
        found.check_listeners([Listener("127.0.0.1", 25, "", "mx", "certs")])
    found.check_listeners([Listener("127.0.0.1", 24, "", "lmtp", "certs")])
