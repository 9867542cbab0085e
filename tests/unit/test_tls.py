"""TLS over both kinds of stream, against Python's and OpenSSL's servers."""

import calendar
import hashlib
import os
import ssl
import subprocess
import sys
import threading
import time
from socket import SHUT_RDWR, create_connection, create_server, socketpair

import pytest

from mqmail.base import waiter
from mqmail.control.certificates import Certificates
from mqmail.net.blocking import BlockingStream
from mqmail.net.certificate import end_point, names_match, validity
from mqmail.net.expired import Expired
from mqmail.net.servertls import ServerTls, start_server
from mqmail.net.stream import connect_tcp
from mqmail.net.tcp import connect_blocking
from mqmail.net.tls import TlsFailed, TlsStream, client_context, start_client
from support.certificates import make_authority, openssl
from support.shells import Blocking, Looping

MEGABYTE = bytes(range(256)) * 4096
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority, tmp_path_factory):
    """(certificate, key) of mx.example."""
    return authority.certificate(["mx.example", "*.pool.example"], tmp_path_factory.mktemp("host"))


@pytest.fixture(params=[Blocking, Looping])
def shell(request):
    made = request.param()
    yield made
    made.close()


def server_context(pair, version="", tickets=2):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.num_tickets = tickets
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class Peer:
    """The other end of ``ours``: *talk(socket)* in a thread. What it raised is raised at the end."""

    def __init__(self, talk):
        self.ours, self._theirs = socketpair()
        self._theirs.settimeout(20)
        self._talk = talk
        self._error = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self._talk(self._theirs)
        except Exception as error:  # noqa: BLE001  raised below
            self._error = error
        finally:
            self._theirs.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ours.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None and kind is None:
            raise self._error


def under_tls(context, talk):
    """A *talk* for Peer, after the handshake."""
    def talking(sock):
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as tls:
            talk(tls)
    return talking


def receive(sock, size):
    found = b""
    while len(found) < size:
        found += sock.recv(size - len(found)) or pytest.fail("too little")
    return found


def nothing(tls):
    tls.recv(1)


async def read_all(stream, size=-1):
    """Until the end, or at least *size* octets."""
    found = []
    while size < 0 or sum(map(len, found)) < size:
        piece = await stream.read()
        if not piece:
            break
        found.append(piece)
    return b"".join(found)


def refuses(talk):
    """A *talk* whose handshake the client gives up."""
    def talking(sock):
        try:
            talk(sock)
        except (ssl.SSLError, ConnectionError):
            pass
    return talking


@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back(shell, authority, pair, version):
    context, asked = server_context(pair, version), []
    context.sni_callback = lambda _tls, name, _context: asked.append(name)

    def echo(tls):
        tls.sendall(receive(tls, len(MEGABYTE)))
        assert tls.recv(10) == b"bye"
        assert tls.recv(10) == b""       # close_notify: without, SSLEOFError

    async def talk(stream):
        context = client_context(True, "", str(authority.file))
        tls = await start_client(stream, context, "mx.example.", 20.0)
        assert tls.version == version
        assert "AES" in tls.cipher or "CHACHA" in tls.cipher
        assert names_match(tls.certificate, ["mx.example"])
        for at in range(0, len(MEGABYTE), 50000):
            tls.write(MEGABYTE[at:at + 50000])
            await tls.drain()
        assert await read_all(tls, len(MEGABYTE)) == MEGABYTE
        tls.write(b"bye")
        assert not tls.closed
        tls.close()
        assert tls.closed
        assert await tls.read() == b""

    with Peer(under_tls(context, echo)) as peer:
        shell.run(talk(shell.stream(peer.ours)))
    assert asked == ["mx.example"]


@pytest.mark.parametrize("version", VERSIONS)
def test_octet_by_octet(pair, version):
    class Dripping(BlockingStream):
        async def read(self):
            return os.read(self._read, 1)

    def echo(tls):
        tls.sendall(receive(tls, 40000))

    async def talk(stream):
        tls = await start_client(stream, client_context(False, "1.2", ""), "", 20.0)
        tls.write(MEGABYTE[:40000])
        return await read_all(tls)

    with Peer(under_tls(server_context(pair, version), echo)) as peer:
        stream = Dripping(peer.ours.fileno(), peer.ours.fileno(), peer.ours)
        assert waiter.run(talk(stream)) == MEGABYTE[:40000]


def test_a_server_under_tls_too(shell, authority, pair):
    context = ssl.create_default_context(cafile=authority.file)

    def client(sock):
        with context.wrap_socket(sock, server_hostname="mx.example") as tls:
            assert receive(tls, 5) == b"hello"

    async def serve(stream):
        tls = TlsStream(stream, server_context(pair), server=True)
        await tls.begin(20.0)
        tls.write(b"hello")
        return await tls.read()

    with Peer(client) as peer:
        assert shell.run(serve(shell.stream(peer.ours))) == b""


# --- an idle session ---

def test_session_tickets_are_no_input(shell, pair):
    shaken, looked, said = threading.Event(), threading.Event(), threading.Event()

    def talk(tls):
        shaken.set()
        looked.wait(20)
        tls.sendall(b"421 bye\r\n")
        said.set()
        assert tls.recv(10) == b""

    with Peer(under_tls(server_context(pair, "TLSv1.3"), talk)) as peer:
        plain = shell.stream(peer.ours)
        tls = shell.run(start_client(plain, client_context(False, "", ""), "", 20.0))
        assert shaken.wait(20)
        assert plain.has_input()        # the tickets
        assert not tls.has_input()
        assert not plain.has_input()
        assert tls.read_now() is None
        looked.set()
        assert said.wait(20)
        assert tls.has_input()
        assert tls.read_now() == b"421 bye\r\n"
        assert not tls.has_input()
        tls.close()


@pytest.mark.parametrize("how", ["close_notify", "end", "garbage"])
def test_the_end_is_input(shell, pair, how):
    done, read = threading.Event(), threading.Event()

    def talk(tls):
        tls.sendall(b"250 half a re")
        if how == "close_notify":
            with pytest.raises((ssl.SSLError, OSError)):
                tls.settimeout(0)
                tls.unwrap()
        elif how == "end":
            tls.shutdown(SHUT_RDWR)
        else:
            os.write(tls.fileno(), b"250 this is not TLS\r\n")
        done.set()
        read.wait(20)

    with Peer(under_tls(server_context(pair), talk)) as peer:
        tls = shell.run(start_client(shell.stream(peer.ours), client_context(False, "", ""), "", 5.0))
        assert done.wait(20)
        assert shell.run(read_all(tls)) == b"250 half a re"
        read.set()
        assert tls.has_input()
        assert tls.read_now() == b""
        tls.write(b"into the void")
        tls.close()


def test_who_says_nothing_at_great_length_has_ended(pair):
    """Session tickets without end."""
    context = server_context(pair, "TLSv1.3", tickets=6000)
    with Peer(refuses(under_tls(context, nothing))) as peer:
        stream = Blocking().stream(peer.ours)
        tls = waiter.run(start_client(stream, client_context(False, "", ""), "", 20.0))
        assert waiter.run(tls.read()) == b""
        tls.close()


def test_descriptors_do_not_pass(pair):
    with Peer(refuses(under_tls(server_context(pair), nothing))) as peer:
        stream = Blocking().stream(peer.ours)
        tls = waiter.run(start_client(stream, client_context(False, "", ""), "", 20.0))
        with pytest.raises(ValueError, match="descriptors"):
            tls.write(b"x", (0,))
        assert tls.take_fds() == []
        tls.close()


# --- handshakes that fail ---

def failure(shell, talk, context, name="mx.example", seconds=20.0):
    """What start_client says; the stream is closed then."""
    with Peer(refuses(talk)) as peer:
        stream = shell.stream(peer.ours)
        with pytest.raises(TlsFailed) as failed:
            shell.run(start_client(stream, context, name, seconds))
        assert stream.closed
    assert str(failed.value).isprintable()
    return str(failed.value)


def test_a_certificate_nobody_vouches_for(shell, pair):
    talk = under_tls(server_context(pair), nothing)
    assert failure(shell, talk, client_context(True, "", "")) == "unable to get local issuer certificate"


def test_a_name_that_cannot_be_read_is_none(shell, authority, tmp_path):
    strange = authority.certificate(["DER:30:03:82:01:FF"], tmp_path)
    context = client_context(True, "", str(authority.file))
    with Peer(under_tls(server_context(strange), nothing)) as peer:
        tls = shell.run(start_client(shell.stream(peer.ours), context, "", 20.0))
        assert tls.certificate == {}
        tls.write(b"x")
        tls.close()


def test_an_expired_certificate(shell, authority, tmp_path):
    expired = authority.certificate(["mx.example"], tmp_path, days=-1)
    context = client_context(True, "", str(authority.file))
    talk = under_tls(server_context(expired), nothing)
    assert failure(shell, talk, context) == "certificate has expired"


def test_a_version_that_is_too_old(shell, pair):
    talk = under_tls(server_context(pair, "TLSv1.2"), nothing)
    assert "protocol version" in failure(shell, talk, client_context(False, "1.3", ""))


@pytest.mark.parametrize(("answer", "why"), [
    (b"501 what?\r\n", "wrong version number"),
    (b"", "connection closed during the handshake"),
    (b"\x16\x03\x03\x00\x02\x02\x00", "connection closed during the handshake"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "alert handshake failure"),
])
def test_an_answer_that_is_no_handshake(shell, answer, why):
    def talk(sock):
        sock.recv(100000)
        sock.sendall(answer)

    assert why in failure(shell, talk, client_context(False, "", ""))


def test_a_server_that_does_not_wait(shell):
    """What came in plain text may not pass for what comes under TLS (RFC 3207 section 6)."""
    ours, theirs = socketpair()
    theirs.sendall(b"250 injected\r\n")
    stream = shell.stream(ours)
    with pytest.raises(TlsFailed, match="did not wait for the handshake"):
        shell.run(start_client(stream, client_context(False, "", ""), "", 20.0))
    assert stream.closed
    theirs.close()


def test_a_silent_server(shell):
    def talk(sock):
        sock.recv(100000)
        sock.recv(1)

    why = failure(shell, talk, client_context(False, "", ""), seconds=0.1)
    assert why == "no handshake within 0.1 s"


def test_a_peer_that_reads_nothing_is_not_listened_to(shell, pair):
    """What it makes us say would be kept without end."""
    given_up = threading.Event()

    def write_only(tls):
        tls.sendall(b"x" * 10000)
        assert given_up.wait(20)

    async def talk(stream):
        tls = await start_client(stream, client_context(False, "", ""), "", 20.0)
        tls.expire_after(0.1)
        tls.write(MEGABYTE)
        await tls.read()

    with Peer(refuses(under_tls(server_context(pair), write_only))) as peer:
        stream = shell.stream(peer.ours)
        with pytest.raises(Expired):
            shell.run(talk(stream))
        given_up.set()
        stream.close()


@pytest.mark.parametrize("name", [".x.example", "x" * 70 + ".example", "a\0b", "\ud800"])
def test_what_is_no_server_name(name):
    why = failure(Blocking(), nothing, client_context(False, "", ""), name)
    assert why.endswith("cannot be a server's name")


def test_a_server_that_is_gone():
    ours, theirs = socketpair()
    theirs.close()
    with pytest.raises(TlsFailed, match="closed before the handshake"):
        waiter.run(start_client(Blocking().stream(ours), client_context(False, "", ""), "", 20.0))


# --- contexts ---

def test_contexts_are_made_once(authority):
    assert client_context(True, "", str(authority.file)) is client_context(True, "", str(authority.file))
    assert client_context(False, "", "") is not client_context(False, "1.3", "")


def test_bad_authorities(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate\n")
    for path in (bad, tmp_path / "missing.pem"):
        with pytest.raises(OSError, match=path.name):
            client_context(True, "", str(path))


@pytest.fixture
def old_server(pair):
    """The port of an openssl s_server that knows TLS 1.0 only."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pair[0], "-key", pair[1],
               "-tls1", "-cipher", "DEFAULT@SECLEVEL=0", "-naccept", "1", "-rev"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if line.startswith("ACCEPT "):
                break
        yield int(line.rpartition(":")[2])
        process.kill()


def test_something_old_is_better_than_nothing(old_server):
    stream = connect_blocking("127.0.0.1", old_server, 20.0)
    tls = waiter.run(start_client(stream, client_context(False, "", ""), "", 20.0))
    assert tls.version == "TLSv1"
    tls.write(b"abc\n")
    assert waiter.run(read_all(tls, 4)) == b"cba\n"
    tls.close()


@pytest.mark.parametrize("verify", [True, False])
def test_but_not_when_more_is_asked_for(old_server, verify):
    stream = connect_blocking("127.0.0.1", old_server, 20.0)
    with pytest.raises(TlsFailed, match="protocol"):
        waiter.run(start_client(stream, client_context(verify, "" if verify else "1.2", ""), "", 20.0))


# --- names and bindings ---

@pytest.mark.parametrize(("alternatives", "names", "good"), [
    ("DNS:mx.example", ["mx.example"], True),
    ("DNS:MX.Example", ["other", "mx.EXAMPLE."], True),
    ("DNS:mx.example", ["x.mx.example"], False),
    ("DNS:mx.example", ["example"], False),
    ("DNS:mx.example", [], False),
    ("DNS:mx.example", [""], False),
    ("DNS:*.example.org", ["a.example.org"], True),
    ("DNS:*.example.org", ["a.b.example.org"], False),
    ("DNS:*.example.org", ["example.org"], False),
    ("DNS:*.example.org", [".example.org"], True),
    ("DNS:a.b.example.org", [".example.org"], True),
    ("DNS:example.org", [".example.org"], False),
    ("DNS:notexample.org", [".example.org"], False),
    ("DNS:*.org", ["example.org"], False),
    ("DNS:*", ["org"], False),
    ("DNS:m*.example.org", ["mx.example.org"], False),
    ("DNS:*x.example.org", ["mx.example.org"], False),
    ("DNS:a.*.example.org", ["a.b.example.org"], False),
    ("DNS:*.*.example.org", ["a.b.example.org"], False),
    ("DNS:\u212a.example", ["k.example"], False),
    ("DNS:192.0.2.1", ["192.0.2.1"], False),
    ("IP Address:192.0.2.1", ["192.0.2.1"], True),
    ("IP Address:192.0.2.1", ["192.0.2.2"], False),
    ("IP Address:2001:DB8:0:0:0:0:0:1", ["2001:db8::1"], True),
    ("DNS:a..example", [".example"], False),
    ("email:x@mx.example", ["mx.example"], False),
    ("", ["mx.example"], False),
])
def test_names(alternatives, names, good):
    kind, _, text = alternatives.partition(":")
    certificate = {"subject": ((("commonName", "mx.example"),),), "subjectAltName": ((kind, text),)}
    assert names_match(certificate, names) is good


def test_no_names_at_all():
    assert not names_match({}, ["mx.example"])


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_end_point(authority, tmp_path, digest):
    certificate, _ = authority.certificate(["a.example"], tmp_path, digest=digest)
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    assert end_point(der) == hashlib.new("sha256" if digest == "sha1" else digest, der).digest()


@pytest.mark.parametrize("days", [1, 20000])        # UTCTime, GeneralizedTime
def test_validity(authority, tmp_path, days):
    certificate, _ = authority.certificate(["a.example"], tmp_path, days=days)
    first, last = [time.strptime(text, "%Y%m%d%H%M%S") for text in
                   validity(ssl.PEM_cert_to_DER_cert(certificate.read_text()))]
    assert calendar.timegm(last) - calendar.timegm(first) == days * 86400
    assert 0 <= time.time() - calendar.timegm(first) < 600


def test_no_end_point(tmp_path):
    """Of a signature without a hash function, and of what is no certificate."""
    openssl("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", tmp_path / "key", "-out",
            tmp_path / "pem", "-subj", "/CN=x")
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "pem").read_text())
    for octets in (der, b"", der[:50], b"\x30\x84\xff\xff\xff\xff" + der, b"\x30" * 40):
        assert end_point(octets) == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_channel_bindings(shell, authority, pair, version):
    seen = []

    def talk(tls):
        seen.append(tls.get_channel_binding("tls-unique"))
        tls.sendall(b"x")

    with Peer(under_tls(server_context(pair, version), talk)) as peer:
        tls = shell.run(start_client(shell.stream(peer.ours), client_context(False, "", ""), "", 20.0))
        shell.run(tls.read())
        unique, end = tls.channel_binding("tls-unique"), tls.channel_binding("tls-server-end-point")
        assert tls.channel_binding("tls-exporter") == b""
        assert tls.certificate == {}        # not verified
        tls.close()
    assert unique == (seen[0] if version == "TLSv1.2" else b"")
    assert end == hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair[0].read_text())).digest()


# --- connecting, and a peer that does not read ---

def test_from_an_address_of_our_own():
    with create_server(("127.0.0.1", 0)) as listener:
        port, looping = listener.getsockname()[1], Looping()
        for stream in (connect_blocking("127.0.0.1", port, 5.0, "127.0.0.9"),
                       looping.run(connect_tcp(looping.loop, looping.deadlines, "127.0.0.1", port, 5.0,
                                               "127.0.0.9"))):
            accepted, (ip, _) = listener.accept()
            assert ip == "127.0.0.9"
            accepted.close()
            stream.close()
        with pytest.raises(OSError, match="192.0.2.77"):
            connect_blocking("127.0.0.1", port, 5.0, "192.0.2.77")
        with pytest.raises(OSError, match="192.0.2.77"):
            looping.run(connect_tcp(looping.loop, looping.deadlines, "127.0.0.1", port, 5.0,
                                    "192.0.2.77"))
        looping.close()
    with pytest.raises(ConnectionRefusedError, match=f"127.0.0.1:{port}"):
        connect_blocking("127.0.0.1", port, 5.0)


def test_connecting_takes_no_longer_than_it_may():
    """To a listener whose queue is full."""
    with create_server(("127.0.0.1", 0), backlog=0) as listener:
        with create_connection(listener.getsockname()):
            with pytest.raises(Expired):
                connect_blocking("127.0.0.1", listener.getsockname()[1], 0.1)


def test_a_peer_that_does_not_read(shell):
    """drain() ends at the deadline under both shells."""
    ours, theirs = socketpair()
    stream = shell.stream(ours)

    async def push():
        stream.expire_after(0.1)
        while True:
            stream.write(bytes(100000))
            await stream.drain()

    with pytest.raises(Expired):
        shell.run(push())
    stream.close()
    theirs.close()


def test_what_a_blocking_write_did_not_get_rid_of_in_time_shows_at_the_read():
    ours, theirs = socketpair()
    stream = Blocking().stream(ours)
    stream.expire_after(0.1)
    stream.write(bytes(10_000_000))
    with pytest.raises(Expired):
        waiter.run(stream.read())
    stream.close()
    theirs.close()


def test_a_handshake_that_drips_gets_no_more_time(shell, pair):
    """As the server, which every stranger may ask for one."""
    ours, theirs = socketpair()
    enough = threading.Event()

    def drip():
        for octet in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400):
            if enough.wait(0.05):
                return
            theirs.send(bytes([octet]))

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(TlsFailed, match=r"no handshake within 0\.3 s"):
        shell.run(start_server(shell.stream(ours), server_context(pair), 0.3))
    assert thread.is_alive()
    enough.set()
    thread.join()
    theirs.close()


def test_a_name_in_octets_above_127_ends_the_handshake_without_a_traceback(pair, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    names = {"*": tuple(map(str, pair)), "b.example": (str(pair[0]), f"/{pair[1]}")}
    made = ServerTls(Certificates(names), "", [("1.2", "no")])
    incoming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(False, "", "").wrap_bio(ssl.MemoryBIO(), hello, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(hello.read().replace(b"a.example", b"\xff.example"))
    server = made.context("1.2", "no").wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    assert (seen, capsys.readouterr().err) == ([], "")


class Recorder:
    """A stream of one session: what is sent, piece by piece; what was sent to it is read."""

    def __init__(self):
        self.pieces, self.received, self.closed = [], [], False

    async def read(self):
        return self.received.pop(0)

    def write(self, data):
        self.pieces.append(data)

    async def drain(self):
        pass

    def expire_after(self, seconds):
        pass

    def close(self):
        self.closed = True


def shaken(pair):
    """(our TlsStream as a server, its Recorder, the client and what it receives) behind a handshake."""
    stream = Recorder()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(False, "1.3", "").wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server = TlsStream(stream, server_context(pair, tickets=1), server=True)
    stream.received = [outgoing.read()]
    with pytest.raises(IndexError):         # it wants more now
        waiter.run(server.begin(1.0))
    incoming.write(stream.pieces.pop())
    client.do_handshake()
    stream.received = [outgoing.read()]
    waiter.run(server.begin(1.0))
    return server, stream, client, incoming


def test_what_is_said_together_leaves_together(pair):
    """A server's ticket with its greeting, the last words with the end of the session."""
    server, stream, client, incoming = shaken(pair)
    server.write(b"220 hello\r\n")
    assert stream.pieces == []
    server.close()
    [piece] = stream.pieces
    incoming.write(piece)
    assert client.read() == b"220 hello\r\n"
    assert client.read() == b""             # close_notify


def test_a_ticket_does_not_wait_for_the_client(pair):
    """One without TCP_NODELAY keeps its EHLO back until something comes."""
    server, stream, client, incoming = shaken(pair)
    with pytest.raises(IndexError):
        waiter.run(server.read())
    [piece] = stream.pieces
    incoming.write(piece)
    with pytest.raises(ssl.SSLWantReadError):
        client.read()
    assert client.session.has_ticket
