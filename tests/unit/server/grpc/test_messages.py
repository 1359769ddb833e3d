"""Our messages against the descriptors that tritonclient was built with."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2

from millpond.core.errors import MissingExtra
from millpond.server.grpc import messages
from millpond.server.grpc.extra import available, require

#: Fields of other servers' builds that tritonclient's does not have.
OURS = {"RepositoryModelLoadResponse": {1, 2}, "RepositoryModelUnloadResponse": {1, 2}}


def described(descriptor) -> dict:
    """Everything of a message that bears on its encoding, and its names."""
    fields = {}
    for field in descriptor.fields:
        inner = field.message_type
        fields[field.number] = (
            field.name,
            field.type,
            field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED,
            field.containing_oneof.name if field.containing_oneof else None,
            described(inner) if inner is not None else None,
            inner.GetOptions().map_entry if inner is not None else None,
        )
    return fields


@pytest.mark.parametrize("name", sorted(messages.MESSAGES))
def test_a_message_is_encoded_as_tritonclient_encodes_it(name):
    ours = described(messages.MESSAGES[name].DESCRIPTOR)
    theirs = described(getattr(service_pb2, name).DESCRIPTOR)
    assert {number: field for number, field in ours.items() if number not in OURS.get(name, ())} == theirs


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    assert available()
    require()
    for name in ("hpack", "google.protobuf"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            assert not available()
            with pytest.raises(MissingExtra, match="gRPC") as caught:
                require()
            assert "millpond[grpc]" in caught.value.hint


def test_the_package_can_be_asked_without_the_extra():
    program = (
        "import sys; sys.modules['hpack'] = None; sys.modules['google.protobuf'] = None\n"
        "from millpond.server.grpc import available; assert not available()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
