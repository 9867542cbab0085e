"""The planner against worlds of hosts that take, refuse, put off or cannot be reached."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.mxlist import DIRECT, Choice, Way
from mqmail.mail.mxplan import MOST_RECIPIENTS, Plan
from mqmail.xmtp.reply import Reply

HOSTS = "abcdef"
WAYS = (DIRECT, DIRECT, Way(tls="verify"), Way(auth="isp"))
VERDICTS = {2: Reply(250), 4: Reply(450), 5: Reply(550)}
DOWN, REFUSED, LATE = Reply(451, ("down",)), Reply(554, ("no service",)), Reply(451, ("too late",))

hops = st.tuples(st.sampled_from(HOSTS), st.just(25), st.sampled_from(WAYS))
lists = st.lists(st.tuples(st.integers(0, 2), hops), min_size=1, max_size=5,
                 unique_by=lambda entry: entry[1])


class Run:
    """One message; *data* decides what happens next."""

    def __init__(self, data):
        self.data = data
        count = data.draw(st.integers(1, 8), label="domains")
        self.lists = {f"d{n}": data.draw(lists) for n in range(count)}
        big = data.draw(st.sampled_from([3, 3, 3, 260]))
        self.domains = [d for d in self.lists for _ in range(data.draw(st.integers(1, big)))]
        self.most = data.draw(st.integers(1, 6), label="most")
        self.told, self.answers, self.dead, self.offered = {}, {}, set(), {}
        self.running, self.asking, self.connections = [], [], set()
        self.gave_up = False
        self.plan = Plan(self.domains, self.most, lambda best: data.draw(st.sampled_from(best)),
                         self.tell)

    def tell(self, number, verdict):
        assert number not in self.told
        self.told[number] = verdict

    def begin(self):
        self.asking += self.plan.lookups()
        for transfer in self.plan.transfers():
            self.check(transfer)
            self.running.append(transfer)
        assert len(self.running) <= self.most

    def check(self, transfer):
        """Whom it goes to, and whether it may."""
        hop = transfer.choice.hop
        assert 0 < len(transfer.recipients) <= MOST_RECIPIENTS
        assert not self.gave_up
        assert hop not in self.dead
        assert all(t.choice.hop != hop or t in self.connections for t in self.running) \
            or hop in {t.choice.hop for t in self.connections}
        for number in transfer.recipients:
            assert number not in self.told
            assert all(number not in t.recipients for t in self.running)
            assert hop not in self.offered.get(number, set())
            ranks = {one: p for p, one in self.lists[self.domains[number]]}
            assert hop in ranks             # in this very way
            assert all(ranks[h] >= ranks[hop] for h in ranks
                       if h not in self.offered.get(number, set()) | self.dead)

    def step(self):
        if self.asking and (not self.running or self.data.draw(st.booleans(), label="look up")):
            domain = self.asking.pop(self.data.draw(st.integers(0, len(self.asking) - 1)))
            if self.data.draw(st.integers(0, 9)) == 0:
                return self.plan.failed(domain, VERDICTS[4])
            return self.plan.found(domain, [
                Choice(p, host, port, way=way) for p, (host, port, way) in self.lists[domain]])
        transfer = self.running[self.data.draw(st.integers(0, len(self.running) - 1))]
        if transfer not in self.connections:
            if self.data.draw(st.booleans(), label="reached"):
                self.connections.add(transfer)
                return self.plan.connected(transfer)
            return self.unreachable(transfer)
        return self.carry(transfer)

    def unreachable(self, transfer):
        self.running.remove(transfer)
        if not any(t.choice.hop == transfer.choice.hop for t in self.running):
            self.dead.add(transfer.choice.hop)
        self.plan.unreachable(transfer, self.data.draw(st.sampled_from([DOWN, REFUSED])))

    def carry(self, transfer):
        kinds = self.data.draw(st.sampled_from(["2", "4", "5", "45", "24", "245"]))
        for n, number in enumerate(transfer.recipients):
            verdict = VERDICTS[int(kinds[n % len(kinds)])]
            self.offered.setdefault(number, set()).add(transfer.choice.hop)
            self.answers.setdefault(number, []).append(verdict)
            self.plan.answered(transfer, number, verdict)
        self.running.remove(transfer)
        self.plan.ended(transfer)

    def run(self):
        while not self.plan.finished:
            self.begin()
            if not self.plan.finished:
                assert not self.plan.stuck
                self.step()
            if self.data.draw(st.integers(0, 60)) == 60:
                self.gave_up = True
                self.plan.give_up(LATE)
        assert self.running == []


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_every_recipient_gets_one_verdict_and_no_host_is_asked_in_vain(data):
    run = Run(data)
    run.run()
    assert set(run.told) == set(range(len(run.domains)))
    for number, verdict in run.told.items():
        answers = run.answers.get(number, [])
        if verdict.code == 250 or answers and verdict.code >= 500:
            assert answers[-1] is verdict               # a final answer was the last one, and is told
        assert all(400 <= answer.code < 500 for answer in answers[:-1])
        if answers and answers[-1].code >= 500:
            assert verdict is answers[-1]
