"""Replies that arrive in parts: whoever is whole is handed over, and nobody waits for the others."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from esn_server.app import from_message
from esn_server.link.grid import PatientGrid


class Store:
    """Stands for the SuperLink: what was announced, and which parts are there."""

    def __init__(self):
        self.announced, self.parts, self.forgotten, self.missing = [], {}, [], set()
        self.looked_for = []

    def announce(self, reply, *, here):
        tree = get_object_tree(reply)
        self.announced.append((message_to_proto(reply), tree))
        self.parts |= {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
        if not here:
            self.missing |= set(get_all_nested_objects(reply)) - {tree.object_id}
        return tree.object_id

    def PullMessages(self, request):
        self.looked_for.append(sorted(request.message_ids))
        announced, self.announced = self.announced, []
        return PullAppMessagesResponse(
            messages_list=[message for message, _ in announced],
            message_object_trees=[tree for _, tree in announced],
        )

    def PullObject(self, request):
        here = request.object_id not in self.missing
        found = request.object_id in self.parts
        content = self.parts[request.object_id] if here and found else b""
        return PullObjectResponse(object_found=found, object_available=here, object_content=content)

    def ConfirmMessageReceived(self, request):
        self.forgotten.append(request.message_object_id)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def grid(store, monkeypatch):
    monkeypatch.setattr(PatientGrid, "_runtime_client", store)
    monkeypatch.setattr(PatientGrid, "run", SimpleNamespace(run_id=7))
    return PatientGrid(Path("/nowhere"), "127.0.0.1:1", token="token")


def reply(body, *, to, records=1):
    content = RecordDict({"answer": ConfigRecord({"body": body})})
    for number in range(1, records):
        content[f"more {number}"] = ConfigRecord({"number": number})
    metadata = Metadata(
        run_id=7,
        message_id="",
        src_node_id=5,
        dst_node_id=1,
        message_type="query",
        group_id="",
        ttl=60.0,
        created_at=0.0,
        reply_to_message_id=to,
    )
    answer = make_message(metadata=metadata, content=content)
    answer.metadata.__dict__["_message_id"] = answer.object_id
    return answer


def bodies(arrived):
    return {to: found if isinstance(found, str) else from_message(found)[0] for to, found in arrived}


def test_a_whole_reply_is_handed_over_once_and_forgotten_by_the_superlink(grid, store):
    reply_id = store.announce(reply(b"one", to="a"), here=True)
    assert bodies(grid.arrived(["a", "b"])) == {"a": b"one"}
    assert store.forgotten == [reply_id]
    assert bodies(grid.arrived(["b"])) == {}


def test_a_reply_whose_parts_are_missing_waits_and_the_next_is_handed_over(grid, store):
    store.announce(reply(b"late", to="a"), here=False)
    store.announce(reply(b"here", to="b"), here=True)
    assert bodies(grid.arrived(["a", "b"])) == {"b": b"here"}
    assert bodies(grid.arrived(["a", "c"])) == {}
    store.missing.clear()
    assert bodies(grid.arrived(["a"])) == {"a": b"late"}
    # Of a reply that was announced the SuperLink would say that it knows nothing.
    assert store.looked_for == [["a", "b"], ["c"]]


def test_a_reply_whose_part_is_lost_is_an_error(grid, store):
    store.announce(reply(b"lost", to="a"), here=True)
    store.parts.clear()
    assert bodies(grid.arrived(["a"])) == {"a": "ReplyUnavailable"}
    assert bodies(grid.arrived([])) == {}


def test_a_reply_of_too_many_parts_is_refused_and_none_of_it_fetched(grid, store):
    reply_id = store.announce(reply(b"much", to="a", records=20), here=False)
    assert bodies(grid.arrived(["a"])) == {"a": "AnswerTooLarge"}
    assert store.forgotten == [reply_id]
