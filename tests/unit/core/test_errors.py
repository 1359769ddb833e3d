import pickle

import pytest

from millpond.core import errors
from millpond.core.errors import Conflict, MillpondError, NotFound


def test_says_what_where_and_hint():
    error = NotFound("There is no table 'flihgts'", where="definitions.py:3", hint="did you mean 'flights'?")
    text = str(error)
    assert text.splitlines() == [
        "There is no table 'flihgts'",
        "  where: definitions.py:3",
        "  hint:  did you mean 'flights'?",
    ]


def test_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(Conflict("taken", where="here", hint="again")))
    assert (type(error), error.what, error.where, error.hint) == (Conflict, "taken", "here", "again")


def test_plain_data_names_the_class():
    assert Conflict("taken").to_dict() == {
        "error": "Conflict",
        "what": "taken",
        "where": "",
        "hint": "",
        "retryable": True,
    }


@pytest.mark.parametrize(
    "kind", [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MillpondError)]
)
def test_the_tree_at_the_top_of_the_file_is_the_tree(kind):
    assert errors.__doc__ is not None
    line = next(each for each in errors.__doc__.splitlines() if f" {kind.__name__} " in f" {each.strip()} ")
    depth = len(kind.__mro__) - len(MillpondError.__mro__)
    assert line.index(kind.__name__) == 4 + 4 * depth
    assert kind.retryable == ("(retryable)" in line)
