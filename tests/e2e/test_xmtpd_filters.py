"""Filters and proxies in front: whom XCLIENT makes of a session, and who may say it."""

import pytest

from support.daemons import Client, make_home, start
from support.home import ME, free_port

pytestmark = pytest.mark.e2e
THERE = "v@foreign.example"


class Front:
    """xmtpd behind a filter at 127.0.0.1."""

    def __init__(self, path, options, **control):
        self.port = free_port()
        home = make_home(path, processesincoming="1",
                         listeners=f"127.0.0.1:{self.port} {options}", **control)
        self.daemons = [start(name, home) for name in ("mq-queue", "mq-resolve", "mq-auth")]
        self.daemons.append(start("xmtpd", home, "--listen"))

    def close(self):
        for daemon in self.daemons:
            daemon.kill()


@pytest.fixture
def front(tmp_path):
    """Makes one."""
    made = []

    def make(options, **control):
        made.append(Front(tmp_path / f"home{len(made)}", options, **control))
        return made[-1].port

    yield make
    for one in made:
        one.close()


def test_a_set_of_a_helo_name_goes_with_it(front):
    port = front("", access="Helo:small.example set:small", optionsets="small databytes=1000")
    with Client(port) as client:
        assert "SIZE 1000" in client.say("EHLO small.example")
        assert "SIZE 1000" not in client.say("EHLO other.example")
        client.say("EHLO small.example")
        assert "SIZE 1000" in client.say("EHLO small.example")


@pytest.mark.parametrize(("option", "said"), [
    ("tls=require", "530 5.7.0 say STARTTLS first"),
    ("clientcert=require", "530 5.7.0 a client certificate is required")])
def test_what_the_set_of_an_address_requires(front, option, said, tmp_path):
    port = front("", access=f"From:bank.example set:strict\nTo:alice@{ME} set:strict",
                 optionsets=f"strict {option}", tlsclientauthorities=str(tmp_path / "authorities"))
    with Client(port) as client:
        client.say("EHLO client.example")
        assert client.say("MAIL FROM:<x@bank.example>") == said
        assert client.begin("a@x.example", f"alice@{ME}", f"postmaster@{ME}")[0] == said
        assert client.say(f"RCPT TO:<postmaster@{ME}>")[:3] == "250"


class Proxied(Client):
    """A client that a proxy speaks for."""

    def __init__(self, port, ip):
        self._ip = ip
        super().__init__(port)

    def read(self):
        if self._ip:
            ip, self._ip = self._ip, ""
            self.send(f"PROXY TCP4 {ip} 10.0.0.1 1234 25\r\n")
        return super().read()


def test_what_the_filter_may_its_clients_may_not(front):
    port = front("xclient=127.0.0.1", access="Connect:127.0.0.1 set:inside",
                 optionsets="inside relay=yes")
    with Client(port) as client:
        assert client.begin("a@x.example", THERE)[0][:3] == "250"
    with Client(port) as client:
        client.say("EHLO filter.example")
        assert client.say("XCLIENT ADDR=198.51.100.7 NAME=evil.example")[:3] == "220"
        assert client.begin("a@x.example", THERE)[0].startswith("550 5.7.1 relaying denied")


def test_a_client_behind_a_proxy_is_no_filter_unless_it_is(front):
    port = front("proxy=127.0.0.1 xclient=127.0.0.1,192.0.2.1")
    with Proxied(port, "198.51.100.7") as client:
        assert "XCLIENT" not in client.say("EHLO evil.example")
        assert client.say("XCLIENT LOGIN=bob")[:3] == "502"
        assert client.begin("a@x.example", THERE)[0][:3] == "550"
    with Proxied(port, "192.0.2.1") as client:
        assert "XCLIENT" in client.say("EHLO filter.example")
        assert client.say("XCLIENT LOGIN=bob")[:3] == "220"
        assert client.begin(f"bob@{ME}", THERE)[0][:3] == "250"


def test_xclient_is_said_once_and_before_mail(front):
    port = front("xclient=127.0.0.1", access="Connect:192.0.2.1 RELAY")
    with Client(port) as client:
        assert "XCLIENT" in client.say("EHLO filter.example")
        assert client.say("XCLIENT ADDR=nonsense")[:3] == "501"
        assert client.say("XCLIENT ADDR=198.51.100.7")[:3] == "220"
        assert "XCLIENT" not in client.say("EHLO evil.example")
        assert client.say("XCLIENT ADDR=192.0.2.1")[:3] == "502"
        assert client.begin("a@x.example", THERE)[0][:3] == "550"
    with Client(port) as client:
        client.begin("a@x.example", f"alice@{ME}")
        client.say("RSET")
        assert client.say("XCLIENT ADDR=192.0.2.1")[:3] == "502"
