import pytest

from mqmail.mail.reason import explain, is_status, status_for


@pytest.mark.parametrize("status", ["5.1.1", "4.999.0", "2.0.0"])
def test_a_status(status):
    assert is_status(status)


@pytest.mark.parametrize("status", ["", "5.1", "5.1.1.1", "3.1.1", "5..1", "5.1.1000", "5.1.\u0661",
                                    "5.1.1\n", "5.+1.1"])
def test_no_status(status):
    assert not is_status(status)


def test_a_known_status_is_explained_for_both_classes():
    assert explain("5.1.1") == explain("4.1.1") == (
        "there is no such mailbox; please check the address for typing errors")


def test_an_unknown_detail_is_explained_by_its_subject():
    assert explain("5.2.99") == "something is wrong with the mailbox"


def test_what_nothing_is_known_about():
    assert explain("5.0.0") == "it could not be delivered"
    assert explain("4.0.0") == "it could not be delivered yet"
    assert explain("2.1.1") == "delivered"


def test_a_bad_status_gives_way_to_that_of_the_action():
    assert status_for("550", "failed") == "5.0.0"
    assert status_for("", "delayed") == "4.0.0"
    assert status_for("4.4.7", "failed") == "4.4.7"
