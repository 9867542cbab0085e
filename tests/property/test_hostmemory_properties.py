"""The memory of hosts against a model, and against files of all kinds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.hostmemory import LONGEST, PROBE, HostMemory

T = 1_700_000_000.0
KEYS = "abc"
fuzzes = st.floats(0, 1, exclude_max=True)
pauses = st.one_of(st.floats(0, 200), st.floats(0, 8000))
steps = st.lists(st.tuples(st.sampled_from(KEYS), pauses, fuzzes,
                           st.sampled_from(["ask", "ask", "ask", "force", "down", "up"])), max_size=60)
texts = st.binary(min_size=1, max_size=30).map(lambda octets: octets.decode("utf-8", "surrogateescape"))


class Host:
    """What a caller knows: when the host may be tried again, and the last attempt."""

    def __init__(self):
        self.until = self.tried = None
        self.trying = False

    def ask(self, now, force):
        """Whether an attempt is right."""
        if self.until is None:
            return True
        if now < self.until and not self.tried < force:
            return False
        self.until, self.tried, self.trying = now + PROBE, now, True
        return True

    def failed(self, now, until):
        """Whether *until* is a right next time."""
        counts = self.until is None or self.trying or now >= self.until
        right = now + 399 <= until <= now + LONGEST + 0.001 if counts else until == self.until
        self.until, self.tried, self.trying = until, now, False
        return right


@settings(deadline=None)
@given(steps)
def test_nobody_tries_a_host_before_its_time_nor_two_at_a_time(steps):
    memory, hosts, now = HostMemory(), {key: Host() for key in KEYS}, T
    for key, pause, fuzz, what in steps:
        now += pause
        if what == "up":
            memory.up(key)
            hosts[key] = Host()
        elif what == "down":
            assert hosts[key].failed(now, memory.down(key, now, fuzz, "4.4.1", "h", "s"))
        else:
            force = now - pause / 2 if what == "force" else 0.0
            told = memory.known(key, now, force)
            assert (told is None) == hosts[key].ask(now, force)
            assert told is None or told.until == hosts[key].until > now


@settings(deadline=None)
@given(steps, st.floats(0, 1e6))
def test_whatever_the_clock_does_no_host_is_down_for_longer_than_the_maximum(steps, jump):
    memory, now = HostMemory(), T
    for key, pause, fuzz, what in steps:
        now += pause if what != "force" else -jump
        memory.down(key, now, fuzz, "4.4.1", "h", "s") if what == "down" else memory.known(key, now)
    now -= jump
    for key in KEYS:
        told = memory.known(key, now)
        assert told is None or now < told.until <= now + LONGEST + 0.001
        assert told is None or memory.known(key, now + LONGEST + 0.001) is None


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.floats(0, 5000), fuzzes, texts, texts)), st.floats(0, 5000))
def test_a_dump_is_read_as_it_was(failures, later):
    one, other = HostMemory(), HostMemory()
    now = T
    for key, pause, fuzz, host, said in failures:
        now += pause
        one.down(key, now, fuzz, "4.4.1", host, said)
    assert other.load(one.dump(), now) == 0
    assert len(other) == len(one)
    assert other.dump() == one.dump()
    for key, *_ in failures:
        mine, read = one.known(key, now + later), other.known(key, now + later)
        assert mine is None or read is None or mine.replace(until=0) == read.replace(until=0)


@settings(deadline=None)
@given(st.lists(texts, unique=True, max_size=20), st.integers(1, 5))
def test_never_more_than_the_most_hosts(keys, most):
    memory = HostMemory(most)
    for n, key in enumerate(keys):
        memory.down(key, T + n, 0.0, "4.4.1", "h", "s")
    kept = [key for key in keys if memory.known(key, T + 100) is not None]
    assert len(memory) == len(kept)
    assert kept == keys[-most:]


words = st.one_of(st.sampled_from([b"a", b"b+20", b"1700000000.000", b"9999999999.000", b"0.000",
                                   b"99999999999.9999", b"status=4.4.1", b"status=5.0.0", b"host=h",
                                   b"said=+FF", b"said=", b"\xff", b"-1.000", b"nan"]),
                  st.binary(max_size=8))
lines = st.lists(words, max_size=8).map(b" ".join)
good = st.tuples(*[st.integers(0, 10**12 - 1)] * 3).map(
    lambda times: b"k %d.000 %d.000 %d.999 status=4.4.1 said=x" % times)
files = st.one_of(st.binary(), st.lists(st.one_of(lines, good), max_size=9).map(b"\n".join))


@settings(deadline=None)
@given(files, st.integers(1, 4))
def test_no_file_does_harm(data, most):
    memory = HostMemory(most)
    bad = memory.load(data, T)
    assert 0 <= bad <= most + 1
    assert len(memory) <= most
    for line in memory.dump().splitlines():
        _, first, tried, until = [float(w) if n else 0 for n, w in enumerate(line.split(b" ")[:4])]
        assert first <= tried <= T
        assert until <= T + LONGEST
    text = memory.dump()
    assert memory.load(text, T) == 0
    assert memory.dump() == text
