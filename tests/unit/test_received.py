import pytest

from mqmail.mail.received import received_line

DATE = "Fri, 22 Nov 2024 07:24:00 +0000"


def line(via, utf8=False):
    return received_line("mx.example.com", "1kq3v9s0c0g00a2f", via, DATE, utf8)


def test_a_message_from_the_network():
    assert line({"proto": "esmtp", "ip": "192.0.2.1", "helo": "mail.example.org"}) == (
        b"Received: from mail.example.org ([192.0.2.1])\r\n"
        b"\tby mx.example.com with ESMTP id 1kq3v9s0c0g00a2f;\r\n"
        b"\tFri, 22 Nov 2024 07:24:00 +0000\r\n")


def test_a_message_from_a_local_user():
    assert line({"proto": "local", "uid": "1000"}) == (
        b"Received: by mx.example.com (mqmail, from uid 1000) id 1kq3v9s0c0g00a2f;\r\n"
        b"\tFri, 22 Nov 2024 07:24:00 +0000\r\n")


@pytest.mark.parametrize("proto", ["bounce", "double"])
def test_a_bounce(proto):
    assert line({"proto": proto, "uid": "1000"}).startswith(
        b"Received: by mx.example.com (mqmail, bounce) id 1kq3v9s0c0g00a2f;\r\n")


@pytest.mark.parametrize(("via", "utf8", "name"), [
    ({"proto": "smtp"}, False, b"SMTP"),
    ({"proto": "smtp", "tls": "x"}, True, b"SMTP"),
    ({"proto": "esmtp"}, True, b"UTF8SMTP"),
    ({"proto": "esmtp", "tls": "TLSv1.3"}, False, b"ESMTPS (TLSv1.3)"),
    ({"proto": "esmtp", "tls": "TLSv1.3", "auth": "al"}, True, b"UTF8SMTPSA (TLSv1.3)"),
    ({"proto": "lmtp", "tls": "TLSv1.2:A-B) x"}, False, b"LMTPS (TLSv1.2/A-B+29+20x)"),
    ({"proto": "lmtp"}, False, b"LMTP"),
    ({"proto": "lmtp", "auth": "al"}, True, b"UTF8LMTPA"),
])
def test_the_registered_names_of_protocols(via, utf8, name):
    assert b" with " + name + b" id " in line(via, utf8)


def test_ipv6_has_its_tag():
    assert b"from a.example ([IPv6:2001:db8::1])\r\n" in line(
        {"proto": "esmtp", "ip": "2001:db8::1", "helo": "a.example"})


@pytest.mark.parametrize("ip", ["192.0.2.1)", "1.2.3", "::1%eth0", "x\r\ny", "999.1.1.1"])
def test_what_is_no_ip_address_is_left_out(ip):
    assert b"from a.example\r\n\tby" in line({"proto": "smtp", "ip": ip, "helo": "a.example"})


def test_a_literal_as_greeting_is_shown():
    assert b"from [192.0.2.9] ([192.0.2.1])\r\n" in line(
        {"proto": "smtp", "ip": "192.0.2.1", "helo": "[192.0.2.9]"})


@pytest.mark.parametrize(("helo", "shown"), [
    ("my laptop", b"my+20laptop"),
    ("x) by evil id 1; (", b"x+29+20by+20evil+20id+201+3B+20+28"),
    ("a\r\nBcc: b", b"a+0D+0ABcc:+20b"),
    ("a\\", b"a+5C"),
    ("m\u00fcll.example", b"m+C3+BCll.example"),
    ("bad\udcffbyte", b"bad+FFbyte"),
    ("<" * 65, b"+3C" * 64 + b"..."),
])
def test_a_greeting_that_is_no_domain_stands_harmless_in_a_comment(helo, shown):
    assert b"from unknown ([192.0.2.1]) (HELO " + shown + b")\r\n\tby " in line(
        {"proto": "smtp", "ip": "192.0.2.1", "helo": helo})


def test_a_utf8_domain_is_shown_in_a_utf8_message_only():
    via = {"proto": "esmtp", "ip": "192.0.2.1", "helo": "m\u00fcll.example"}
    assert "from m\u00fcll.example (".encode() in line(via, utf8=True)
    assert line(via).isascii()


def test_no_greeting_at_all():
    assert b"from unknown ([192.0.2.1])\r\n" in line({"proto": "smtp", "ip": "192.0.2.1"})


@pytest.mark.parametrize("uid", ["", "x", "1)", "\u0661", "-1", "9" * 11])
def test_what_is_no_uid_is_left_out(uid):
    assert b"by mx.example.com (mqmail) id" in line({"proto": "local", "uid": uid})
