"""Applying the changes between two sets of meanings to the one gives the other."""

import json

from hypothesis import given
from hypothesis import strategies as st

from millpond.core.fingerprints import canonical_json
from millpond.definitions.changes import apply_changes, apply_fields, compare, diff, in_words
from millpond.definitions.meanings import Key

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "1h", "a\nb", "a\nc"])
)
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["over", "columns", "a.b", "kind", "x"]), inner, max_size=4),
    max_leaves=12,
)
MEANINGS = st.dictionaries(st.sampled_from(["columns", "over", "inputs", "key", "time"]), VALUES, max_size=5)
KEYS = st.builds(Key, st.sampled_from(["table", "view", "model"]), st.sampled_from("abc"))
PROJECTS = st.dictionaries(KEYS, MEANINGS, max_size=5)


@given(MEANINGS, MEANINGS)
def test_the_changes_of_a_meaning_lead_to_the_other(old, new):
    before = canonical_json(old)
    assert canonical_json(apply_fields(old, diff(old, new))) == canonical_json(new)
    assert canonical_json(old) == before


@given(PROJECTS, PROJECTS)
def test_the_changes_of_a_project_lead_to_the_other(old, new):
    found = apply_changes(old, compare(old, new))
    assert {key: canonical_json(each) for key, each in found.items()} == {
        key: canonical_json(each) for key, each in new.items()
    }


@given(PROJECTS)
def test_nothing_differs_from_itself_also_after_a_way_through_json(project):
    again = {key: json.loads(canonical_json(each)) for key, each in project.items()}
    assert compare(project, again) == ()


@given(MEANINGS, MEANINGS)
def test_there_is_a_change_where_the_fingerprints_differ_and_nowhere_else(old, new):
    assert bool(diff(old, new)) == (canonical_json(old) != canonical_json(new))


@given(MEANINGS, MEANINGS)
def test_each_change_can_be_said(old, new):
    for change in diff(old, new):
        assert all(in_words(change))
