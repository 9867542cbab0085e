"""The look-up order against a model that has nothing in common with the code, and cdb files, whole and
damaged."""

import os
import random
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.base.failure import BadFile
from mqmail.control import lines
from mqmail.control.access import parse_access
from mqmail.policy import access, cdb, sqlitemap
from mqmail.policy.facts import Facts
from mqmail.policy.maps import Files, Maps

LABELS = ["a", "b", "x1"]
DOMAINS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join)
LOCALS = st.lists(st.sampled_from(["u", "v", "w"]), min_size=1, max_size=3).map("+".join)
IPS = st.tuples(*[st.sampled_from([0, 1, 128, 255])] * 4).map(lambda four: ".".join(map(str, four)))


def networks_of(ip, length):
    bits = "".join([f"{int(part):08b}" for part in ip.split(".")])
    bits = bits[:length] + "0" * (32 - length)
    return ".".join([str(int(bits[at:at + 8], 2)) for at in range(0, 32, 8)]) + f"/{length}"


NETWORKS = st.builds(networks_of, IPS, st.integers(1, 31))
CLIENT_KEYS = st.one_of(IPS, NETWORKS, DOMAINS, DOMAINS.map(".{}".format), st.just("*"))
PEOPLE_KEYS = st.one_of(st.builds("{}@{}".format, LOCALS, DOMAINS), LOCALS.map("{}@".format), DOMAINS,
                        DOMAINS.map(".{}".format), st.just("*"))


def parents(domain):
    """How good a key with a dot in front is: the longer the better."""
    return lambda key: key[:1] == "." and domain.endswith(key) and len(key)


def rank_of_client(key, ip, host):
    """None when the key does not match; else the larger, the narrower."""
    if key == "*":
        return (0, 0)
    if key == ip:
        return (5, 0)
    if "/" in key:
        length = int(key.partition("/")[2])
        return (4, length) if networks_of(ip, length) == key else None
    if key == host:
        return (3, 0)
    return (2, len(key)) if parents(host)(key) else None


def rank_of_person(key, local, domain):
    words = local.split("+")
    if key == "*":
        return (0, 0)
    if "@" in key:
        user, at = key.split("@")
        detailed = user.split("+")
        if detailed != words[:len(detailed)] or at not in ("", domain):
            return None
        return (5 if at else 4, len(detailed))
    if key == domain:
        return (3, 0)
    return (2, len(key)) if parents(domain)(key) else None


def check(stage, keys, rank, facts):
    text = "".join([f"{tag}{key} REJECT n{number}\n" for number, (tag, key) in enumerate(keys)])
    found = lines.parse("x", text.encode(), parse_access, "")
    table = Maps("access", found.entries, found.words, Files("nothing"))
    ranked = [((*rank(key), tag != ""), f"REJECT n{number}") for number, (tag, key) in enumerate(keys)
              if rank(key) is not None and tag.lower() in ("", f"{access.TAGS[stage]}:")]
    entry = access.find(table, stage, facts, "+")
    assert (entry.action if entry else None) == max(ranked, default=(0, None))[1]


@given(ip=IPS, host=DOMAINS, stage=st.just("connect"),
       keys=st.lists(st.tuples(st.sampled_from(["", "Connect:", "Helo:"]), CLIENT_KEYS), max_size=12,
                     unique=True))
@settings(deadline=None)
def test_clients(ip, host, stage, keys):
    facts = Facts("s", ip=ip)
    facts.host = host
    check(stage, keys, lambda key: rank_of_client(key, ip, host), facts)


@given(local=LOCALS, domain=DOMAINS, stage=st.sampled_from(["mail", "rcpt"]),
       keys=st.lists(st.tuples(st.sampled_from(["", "From:", "To:"]), PEOPLE_KEYS), max_size=12,
                     unique=True))
@settings(deadline=None)
def test_senders_and_recipients(local, domain, stage, keys):
    facts = Facts("s")
    facts.sender = facts.recipient = f"{local}@{domain}"
    check(stage, keys, lambda key: rank_of_person(key, local, domain), facts)


@given(text=st.text(max_size=60))
@settings(deadline=None)
def test_a_line_is_understood_or_refused(text):
    try:
        found = lines.parse("x", text.encode("utf-8", "surrogatepass"), parse_access, "")
    except BadFile as error:
        assert error.text.startswith("x line ")
    else:
        again = "".join([f"{key} {action}\n" for key, action in found.entries.items()])
        assert lines.parse("x", again.encode(), parse_access, "") == found


PAIRS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
                        st.text(st.characters(exclude_categories=["Cs"]), max_size=100), max_size=60)


def written(pairs):
    """A descriptor of a cdb file."""
    with tempfile.TemporaryFile() as file:
        cdb.write(file.fileno(), [(key.encode(), value.encode()) for key, value in pairs.items()])
        return os.dup(file.fileno())


@given(pairs=PAIRS, others=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)))
@settings(deadline=None)
def test_what_is_in_a_cdb_comes_out_of_it(pairs, others):
    found = cdb.Cdb(written(pairs), "x.cdb")
    try:
        for key in [*pairs, *others]:
            assert found.get(key) == pairs.get(key)
    finally:
        found.close()


@given(pairs=PAIRS, seed=st.integers(), cut=st.booleans(), flips=st.integers(0, 20))
@settings(deadline=None, max_examples=200)
def test_a_damaged_cdb_answers_or_says_so(pairs, seed, cut, flips):
    fd = written({**pairs, "a": "b"})
    chance = random.Random(seed)
    size = os.fstat(fd).st_size
    for _ in range(flips):
        os.pwrite(fd, chance.randbytes(chance.randint(1, 8)), chance.randrange(size))
    if cut:
        os.ftruncate(fd, chance.randrange(size))
    try:
        found = cdb.Cdb(fd, "x.cdb")
    except BadFile as error:
        assert error.text.startswith("x.cdb: ")
        return
    try:
        for key in [*pairs, "a", "missing"]:
            try:
                value = found.get(key)
            except BadFile as error:
                assert error.text.startswith("x.cdb: ")
            else:
                assert value is None or isinstance(value, str)
    finally:
        found.close()


@given(pairs=PAIRS, seed=st.integers(), flips=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_a_damaged_sqlite_file_answers_or_says_so(pairs, seed, flips):
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as top:
        path = f"{top}/x.sqlite"
        sqlitemap.write(path, [(key, value) for key, value in pairs.items() if "\0" not in key])
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            for _ in range(flips):
                os.pwrite(file.fileno(), chance.randbytes(chance.randint(1, 8)), chance.randrange(size))
        try:
            found = sqlitemap.SqliteMap(path)
        except BadFile as error:
            assert error.text.startswith(path)
            return
        for key in [*pairs, "missing"]:
            try:
                value = found.get(key)
            except BadFile as error:
                assert error.text.startswith(path)
            else:
                assert value is None or isinstance(value, str)
        found.close()
