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


@pytest.mark.parametrize("microseconds", [0, 2**22 - 1, 2**22, 2**29, 2**30 - 1, 2**30, 1732252800123])
def test_directory_is_bits_22_to_29(microseconds):
    assert ids.directory(ids.make(microseconds, 99)) == f"{microseconds >> 22 & 255:02x}"


def test_messages_of_four_seconds_share_a_directory_and_all_256_are_used():
    start = 413000000 << 22
    assert len({ids.directory(ids.make(start + n, 1)) for n in range(0, 2**22, 99991)}) == 1
    assert len({ids.directory(ids.make(start + (n << 22), 1)) for n in range(256)}) == 256


@pytest.mark.parametrize("text", ["", "1h7f64d00i000c1", "1h7f64d00i000c1pp", "1H7f64d00i000c1p",
                                  "1h7f64d00i000c1w", "../../../../etc/p", "1h7f64d0_i000c1p",
                                  "1h7f64d00i000c1\n", "\u0661h7f64d00i000c1p", "+h7f64d00i000c1p"])
def test_not_an_id(text):
    assert not ids.is_id(text)
