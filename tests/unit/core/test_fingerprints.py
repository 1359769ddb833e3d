import hashlib

import pytest

from millpond.core.fingerprints import canonical_json, file_digest, fingerprint
from millpond.core.ids import new_id


def test_order_of_keys_does_not_matter_and_values_do():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint(None)) == 16


def test_what_json_cannot_say_exactly_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_file_is_digested_in_pieces(tmp_path):
    content = b"x" * (3 << 20)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_ids_differ_and_sort_by_time():
    made = [new_id("p") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(each.startswith("p_") and len(each) == 28 for each in made)
    assert [each[:12] for each in made] == sorted(each[:12] for each in made)
