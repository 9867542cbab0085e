import pytest

from mqmail.queue import ids


def test_the_documented_shape():
    id = ids.make(1732252800123456, 12345)
    assert id == "1h7f64d00i000c1p"
    assert ids.is_id(id)
    assert ids.microseconds(id) == 1732252800123456


def test_ids_sort_by_time():
    times = [0, 1, 31, 32, 1023, 1024, 10**9, 1732252800123456, 1732252800123457, 2**55 - 1]
    made = [ids.make(t, 31 - i) for i, t in enumerate(times)]
    assert sorted(made) == made
    assert [ids.microseconds(id) for id in made] == times


def test_processes_of_the_same_microsecond_differ():
    processes = [0, 1, 31, 32, 1023, 4194304, 2**25 - 2]
    assert len({ids.make(5, p) for p in processes}) == len(processes)


@pytest.mark.parametrize("process", [-1, 2**25, 2**64 + 7, -(2**70)])
def test_any_number_is_a_process(process):
    id = ids.make(7, process)
    assert ids.is_id(id)
    assert ids.microseconds(id) == 7


@pytest.mark.parametrize("microseconds", [-1, 2**55])
def test_a_time_that_does_not_fit(microseconds):
    with pytest.raises(ValueError, match="no time for a queue id"):
        ids.make(microseconds, 1)


@pytest.mark.parametrize("microseconds", [0, 2**14 - 1, 2**14, 2**21, 2**22 - 1, 2**22, 1732252800123])
@pytest.mark.parametrize("process", [0, 1, 99, 1023, 4194304])
def test_directory_is_made_of_time_and_process(microseconds, process):
    expected = ((microseconds >> 14) + 67 * (process & 1023)) % 256
    assert ids.directory(ids.make(microseconds, process)) == f"{expected:02x}"


def test_messages_of_one_process_in_16_ms_share_a_directory_and_all_256_are_used():
    start = 413000000 << 22
    assert len({ids.directory(ids.make(start + n, 1)) for n in range(0, 2**14, 99)}) == 1
    assert len({ids.directory(ids.make(start + (n << 14), 1)) for n in range(256)}) == 256
    assert len({ids.directory(ids.make(start, 1000 + n)) for n in range(16)}) == 16


@pytest.mark.parametrize("text", ["", "1h7f64d00i000c1", "1h7f64d00i000c1pp", "1H7f64d00i000c1p",
                                  "1h7f64d00i000c1w", "../../../../etc/p", "1h7f64d0_i000c1p",
                                  "1h7f64d00i000c1\n", "\u0661h7f64d00i000c1p", "+h7f64d00i000c1p"])
def test_not_an_id(text):
    assert not ids.is_id(text)
