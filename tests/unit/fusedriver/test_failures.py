import pytest

from oscirc_blockstore import errors
from oscirc_blockstore.errors import LocalError, OscircError, ServerRefusedError, TransportError
from oscirc_fusedriver.failures import describe, restore

EVERY = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, OscircError) and found is not ServerRefusedError
]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_an_error_crosses_as_itself(kind):
    crossed = restore(describe(kind("what happened", hint="what to do")))
    assert (type(crossed), str(crossed), crossed.hint) == (kind, "what happened", "what to do")


def test_an_error_that_needs_more_crosses_as_its_branch():
    crossed = restore(describe(ServerRefusedError("no", status=503, hint="later")))
    assert (type(crossed), str(crossed), crossed.hint, crossed.exit_code) == (TransportError, "no", "later", 5)


@pytest.mark.parametrize("name", ["NoSuchError", "annotations", "__name__", None, 3])
def test_an_unknown_name_is_still_an_error(name):
    assert type(restore({"error": name, "message": "x"})) is OscircError


def test_no_words_are_replaced():
    assert str(restore({"error": "LocalError"}))
    assert describe(LocalError("x"))["exit_code"] == 6
