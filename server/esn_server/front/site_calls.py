"""What a site may say: its own word, about messages that it was given, and no more than an answer holds.

The SuperLink knows which key belongs to which node, and compares it with the
node that a call names. It does not compare it with the sender that a pushed
message names, lets every node read and throw away every object, and stores what
is pushed. The front reads each call, refuses what is not the caller's, and
remembers of each site which messages it was given and what it has answered.
After a restart it remembers nothing: what was under way then is refused, and
the study asks again.
"""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.run_pb2 import GetRunRequest
from google.protobuf.message import DecodeError, Message

from esn_core.messages.envelope import LARGEST_MESSAGE_BYTES

# Flower sends an answer as one object, in a wrapping of some hundred bytes.
MAX_BODY_BYTES = LARGEST_MESSAGE_BYTES + 2**20
# Of every call but the one that brings a part of an answer: an error's words and a tree of a few hashes.
_MAX_SMALL_BODY_BYTES = 64 * 2**10
ACTIVATE = b"/v1/fleet/activate-node"
POLL = b"/v1/fleet/pull-messages"
_PART = b"/v1/fleet/push-object"

# Questions are given out one at a time; one that stays unanswered is repeated 13 times a day.
_MESSAGES_OF_SITE = 64
# An honest answer is three: the message, what it holds, and the record with the bytes.
_MOST_PARTS = 8
# A push whose reply was lost is repeated.
_MOST_PUSHES = 4

_REQUESTS: dict[bytes, type[Message]] = {
    ACTIVATE: ActivateNodeRequest,
    b"/v1/fleet/deactivate-node": DeactivateNodeRequest,
    b"/v1/fleet/send-node-heartbeat": SendNodeHeartbeatRequest,
    POLL: PullMessagesRequest,
    b"/v1/fleet/get-run": GetRunRequest,
    b"/v1/fleet/get-fab": GetFabRequest,
    b"/v1/fleet/pull-object": PullObjectRequest,
    b"/v1/fleet/confirm-message-received": ConfirmMessageReceivedRequest,
    b"/v1/fleet/push-messages": PushMessagesRequest,
    _PART: PushObjectRequest,
}
CALLS = frozenset(_REQUESTS)
"""What a SuperNode with a key of its own calls; it is registered by the centre, never by itself."""


class CallRefusedError(Exception):
    """A call that is not let through; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass
class _Answer:
    """What a site announced as its answer to one message."""

    message_id: str
    parts: frozenset[str]
    announced: int = 0
    sessions: set[str] = field(default_factory=set)
    pushes: Counter[str] = field(default_factory=Counter)
    part_bytes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Given:
    """A message that the SuperLink gave to a site."""

    run_id: int
    parts: frozenset[str]
    answer: _Answer | None = None


class SiteCalls:
    """Reads the calls of enrolled sites; a site is named by its key."""

    def __init__(self) -> None:
        self._given: dict[bytes, OrderedDict[str, _Given]] = {}

    def largest_body(self, site: bytes, target: bytes) -> int:
        """Return how many bytes a call may have: many only while a part of an answer is to come."""
        expected = target == _PART and any(
            answer.part_bytes.keys() != answer.parts for _, answer in self._answers(site)
        )
        return MAX_BODY_BYTES if expected else _MAX_SMALL_BODY_BYTES

    def read(self, site: bytes, target: bytes, body: bytes) -> Message:
        """Return what a call says, if this site may say it.

        Raises
        ------
        CallRefusedError

        """
        call = _REQUESTS[target]()
        try:
            call.ParseFromString(body)
        except DecodeError:
            raise CallRefusedError(400, "not understood") from None
        call.DiscardUnknownFields()
        if isinstance(call, ActivateNodeRequest):
            _require(call.public_key == site, "another site's key")
        elif isinstance(call, PullObjectRequest):
            given = [g for g in self._of(site).values() if call.object_id in g.parts]
            _require(any(g.run_id == call.run_id for g in given), "not a part of a message to this site")
        elif isinstance(call, ConfirmMessageReceivedRequest):
            message = self._of(site).get(call.message_object_id)
            _require(message is not None and message.run_id == call.run_id, "not a message to this site")
        elif isinstance(call, PushMessagesRequest):
            self._check_answer(site, call)
        elif isinstance(call, PushObjectRequest):
            self._check_part(site, call)
        return call

    def note(self, site: bytes, call: Message, reply: bytes) -> None:
        """Remember what the SuperLink did at a call, once it has done it."""
        try:
            if isinstance(call, PullMessagesRequest):
                self._note_messages(site, PullMessagesResponse.FromString(reply))
            elif isinstance(call, PushMessagesRequest):
                self._note_answer(site, call, PushMessagesResponse.FromString(reply))
            elif isinstance(call, PushObjectRequest) and PushObjectResponse.FromString(reply).stored:
                for _, answer in self._answers(site):
                    if call.object_id in answer.parts:
                        answer.part_bytes[call.object_id] = len(call.object_content)
        except DecodeError:  # nothing of it is remembered, and so nothing that builds on it is let through
            return

    def _of(self, site: bytes) -> OrderedDict[str, _Given]:
        return self._given.setdefault(site, OrderedDict())

    def _answers(self, site: bytes) -> Iterator[tuple[_Given, _Answer]]:
        return ((g, g.answer) for g in self._of(site).values() if g.answer is not None)

    def _check_answer(self, site: bytes, call: PushMessagesRequest) -> None:
        one = len(call.messages_list) == len(call.message_object_trees) == 1
        _require(one and len(call.clientapp_runtime_list) <= 1, "not one answer", status=400)
        (message,), (tree,) = call.messages_list, call.message_object_trees
        said = message.metadata
        _require(call.node.node_id != 0 and said.src_node_id == call.node.node_id, "another site's answer")
        given = self._of(site).get(said.reply_to_message_id)
        if given is None or given.run_id != said.run_id:
            raise CallRefusedError(404, "not an answer to a message to this site")
        parts = _parts(tree)
        _require(message.content.ByteSize() == 0, "more than an answer's parts", status=400)
        _require(
            len(parts) <= _MOST_PARTS and said.message_id == tree.object_id, "too many parts", status=400
        )
        if given.answer is not None:
            same = given.answer.message_id == said.message_id and given.answer.parts == frozenset(parts)
            _require(same, "another answer to the same message")
            _require(given.answer.announced < _MOST_PUSHES, "too often", status=429)

    def _note_answer(self, site: bytes, call: PushMessagesRequest, reply: PushMessagesResponse) -> None:
        (message,), (tree,) = call.messages_list, call.message_object_trees
        given = self._of(site).get(message.metadata.reply_to_message_id)
        if given is None:
            return
        if given.answer is None:
            given.answer = _Answer(message.metadata.message_id, frozenset(_parts(tree)))
        if given.answer.message_id == message.metadata.message_id:
            given.answer.announced += 1
            given.answer.sessions.add(reply.session_id)

    def _check_part(self, site: bytes, call: PushObjectRequest) -> None:
        for given, answer in self._answers(site):
            if call.object_id not in answer.parts or given.run_id != call.run_id:
                continue
            if not call.session_id or call.session_id not in answer.sessions:
                continue
            others = sum(size for part, size in answer.part_bytes.items() if part != call.object_id)
            _require(
                others + len(call.object_content) <= MAX_BODY_BYTES, "the answer is too large", status=413
            )
            answer.pushes[call.object_id] += 1
            _require(answer.pushes[call.object_id] <= _MOST_PUSHES, "too often", status=429)
            return
        raise CallRefusedError(404, "not a part of an answer of this site")

    def _note_messages(self, site: bytes, reply: PullMessagesResponse) -> None:
        mine = self._of(site)
        for message, tree in zip(reply.messages_list, reply.message_object_trees, strict=False):
            mine[message.metadata.message_id] = _Given(message.metadata.run_id, frozenset(_parts(tree)))
            while len(mine) > _MESSAGES_OF_SITE:
                mine.popitem(last=False)


def _require(holds: bool, words: str, *, status: int = 404) -> None:
    if not holds:
        raise CallRefusedError(status, words)


def _parts(tree: Any) -> list[str]:
    """Return the ids in a tree of objects, its root first."""
    left: list[ObjectTree] = [tree]
    found = []
    while left:
        node = left.pop()
        found.append(node.object_id)
        left += node.children
    return found
