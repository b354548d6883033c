"""What a site may say to the SuperLink: attacks with another site's or with its own key."""

import hashlib

import pytest
from flwr.proto.error_pb2 import Error
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict

from esn_server.front.site_calls import CALLS, MAX_BODY_BYTES, CallRefusedError, SiteCalls

NORTH, SOUTH = b"north's key", b"south's key"
NODES = {NORTH: 5, SOUTH: 6}
RUN = 7


def digest(name):
    return hashlib.sha256(name.encode()).hexdigest()


def tree(name, parts=2):
    children = [ObjectTree(object_id=digest(f"{name} {part}")) for part in range(1, parts)]
    return ObjectTree(object_id=digest(name), children=children)


def answer(site, *, to="question of south", name="answer", parts=3, **about):
    said = {
        "run_id": RUN,
        "message_id": digest(name),
        "src_node_id": NODES[site],
        "dst_node_id": 1,
        "reply_to_message_id": digest(to) if to else "",
        **about,
    }
    message = Message(metadata=Metadata(**said), content=RecordDict())
    trees = [tree(name, parts)]
    return PushMessagesRequest(
        node=Node(node_id=NODES[site]), messages_list=[message], message_object_trees=trees
    )


def part(site, name="answer", *, session="session", content=b"x", run=RUN):
    return PushObjectRequest(
        node=Node(node_id=NODES[site]),
        run_id=run,
        object_id=digest(name),
        object_content=content,
        session_id=session,
    )


@pytest.fixture
def calls():
    """Each of two sites was given a question."""
    calls = SiteCalls()
    for site, name in ((NORTH, "question of north"), (SOUTH, "question of south")):
        message = Message(metadata=Metadata(run_id=RUN, message_id=digest(name)))
        given = PullMessagesResponse(messages_list=[message], message_object_trees=[tree(name)])
        poll = PullMessagesRequest(node=Node(node_id=NODES[site]))
        assert say(calls, site, "pull-messages", poll) == poll
        calls.note(site, poll, given.SerializeToString())
    return calls


def say(calls, site, call, message):
    return calls.read(site, f"/v1/fleet/{call}".encode(), message.SerializeToString())


def announce(calls, site, message, session="session"):
    call = say(calls, site, "push-messages", message)
    calls.note(site, call, PushMessagesResponse(session_id=session).SerializeToString())


def refusal(calls, site, call, message):
    with pytest.raises(CallRefusedError) as refused:
        say(calls, site, call, message)
    return refused.value.status


def pull(site, name, run=RUN):
    return PullObjectRequest(node=Node(node_id=NODES[site]), run_id=run, object_id=digest(name))


def confirm(site, name, run=RUN):
    return ConfirmMessageReceivedRequest(
        node=Node(node_id=NODES[site]), run_id=run, message_object_id=digest(name)
    )


def test_a_site_reads_confirms_and_answers_its_own_messages(calls):
    for name in ("question of south", "question of south 1"):
        assert say(calls, SOUTH, "pull-object", pull(SOUTH, name)) == pull(SOUTH, name)
    assert say(calls, SOUTH, "confirm-message-received", confirm(SOUTH, "question of south"))
    announce(calls, SOUTH, answer(SOUTH))
    for name in ("answer", "answer 1", "answer 2"):
        call = say(calls, SOUTH, "push-object", part(SOUTH, name))
        calls.note(SOUTH, call, PushObjectResponse(stored=True).SerializeToString())


@pytest.mark.parametrize("name", ["question of south", "question of south 1", "answer", "no such object"])
def test_a_site_reads_nothing_of_another(calls, name):
    announce(calls, SOUTH, answer(SOUTH))
    assert refusal(calls, NORTH, "pull-object", pull(NORTH, name)) == 404


@pytest.mark.parametrize("name", ["question of south", "question of south 1", "answer"])
def test_a_site_confirms_nothing_away_of_another(calls, name):
    announce(calls, SOUTH, answer(SOUTH))
    assert refusal(calls, NORTH, "confirm-message-received", confirm(NORTH, name)) == 404
    # Nor what it was given in a run, under another one.
    assert (
        refusal(calls, SOUTH, "confirm-message-received", confirm(SOUTH, "question of south", run=8)) == 404
    )


@pytest.mark.parametrize(
    "forged",
    [
        answer(NORTH, src_node_id=NODES[SOUTH]),  # in south's name
        answer(NORTH),  # to south's question, in its own
        answer(NORTH, to=None),  # a question of its own making
        answer(NORTH, to=None, src_node_id=1),  # in the SuperLink's name
        answer(NORTH, to="question of north", run_id=8),
        answer(NORTH, to="no such question"),
    ],
)
def test_a_site_pushes_no_message_but_its_own_answers(calls, forged):
    assert refusal(calls, NORTH, "push-messages", forged) == 404


def test_an_answer_is_one_and_small_and_stays_as_it_is(calls):
    twice = answer(SOUTH)
    twice.messages_list.append(twice.messages_list[0])
    assert refusal(calls, SOUTH, "push-messages", twice) == 400
    content = answer(SOUTH)
    content.messages_list[0].content.items.add(key="more")
    assert refusal(calls, SOUTH, "push-messages", content) == 400
    assert refusal(calls, SOUTH, "push-messages", answer(SOUTH, parts=9)) == 400
    assert refusal(calls, SOUTH, "push-messages", answer(SOUTH, message_id=digest("other"))) == 400
    announce(calls, SOUTH, answer(SOUTH))
    # The same message again, with other parts to store: for ever, if it were let through.
    more = answer(SOUTH)
    more.message_object_trees[0].CopyFrom(tree("answer", parts=5))
    assert refusal(calls, SOUTH, "push-messages", more) == 404
    assert refusal(calls, SOUTH, "push-messages", answer(SOUTH, name="another")) == 404
    for _ in range(3):
        announce(calls, SOUTH, answer(SOUTH))
    assert refusal(calls, SOUTH, "push-messages", answer(SOUTH)) == 429


def test_a_site_stores_parts_of_its_own_answer_only(calls):
    assert refusal(calls, SOUTH, "push-object", part(SOUTH)) == 404
    announce(calls, SOUTH, answer(SOUTH))
    assert refusal(calls, NORTH, "push-object", part(NORTH)) == 404
    for wrong in (
        part(SOUTH, "elsewhere"),
        part(SOUTH, session=""),  # the SuperLink would look for any session that lacks the part
        part(SOUTH, session="of another push"),
        part(SOUTH, run=8),
    ):
        assert refusal(calls, SOUTH, "push-object", wrong) == 404
    for _ in range(4):
        say(calls, SOUTH, "push-object", part(SOUTH))
    assert refusal(calls, SOUTH, "push-object", part(SOUTH)) == 429


def test_all_parts_of_an_answer_are_as_large_as_one_body_at_most(calls):
    target = b"/v1/fleet/push-object"
    assert calls.largest_body(SOUTH, target) < 2**17
    announce(calls, SOUTH, answer(SOUTH))
    assert calls.largest_body(SOUTH, target) == MAX_BODY_BYTES
    assert calls.largest_body(SOUTH, b"/v1/fleet/push-messages") < 2**17
    assert calls.largest_body(NORTH, target) < 2**17
    half = bytes(MAX_BODY_BYTES // 2 + 1)
    first = say(calls, SOUTH, "push-object", part(SOUTH, "answer 1", content=half))
    calls.note(SOUTH, first, PushObjectResponse(stored=True).SerializeToString())
    assert refusal(calls, SOUTH, "push-object", part(SOUTH, "answer 2", content=half)) == 413


def test_a_site_activates_itself_only(calls):
    assert refusal(calls, NORTH, "activate-node", ActivateNodeRequest(public_key=SOUTH)) == 404
    assert say(calls, NORTH, "activate-node", ActivateNodeRequest(public_key=NORTH))


def test_an_error_is_an_answer_like_another(calls):
    told = answer(SOUTH, parts=1)
    told.messages_list[0].ClearField("content")
    told.messages_list[0].error.CopyFrom(Error(code=6, reason="ValueError"))
    announce(calls, SOUTH, told)


def test_what_is_no_call_is_refused_and_what_is_unknown_in_it_is_left_out(calls):
    with pytest.raises(CallRefusedError, match="not understood"):
        calls.read(SOUTH, b"/v1/fleet/pull-object", b"\xff\xff")
    body = pull(SOUTH, "question of south").SerializeToString()
    unknown = body + b"\xfa\x7f\x04more"  # field 2047 of bytes
    assert calls.read(SOUTH, b"/v1/fleet/pull-object", unknown).SerializeToString() == body


def test_the_front_forgets_the_oldest_messages_of_a_site(calls):
    poll = PullMessagesRequest(node=Node(node_id=NODES[SOUTH]))
    for number in range(64):
        message = Message(metadata=Metadata(run_id=RUN, message_id=digest(f"{number}")))
        given = PullMessagesResponse(messages_list=[message], message_object_trees=[tree(f"{number}")])
        calls.note(SOUTH, poll, given.SerializeToString())
    assert refusal(calls, SOUTH, "pull-object", pull(SOUTH, "question of south")) == 404
    assert say(calls, NORTH, "pull-object", pull(NORTH, "question of north"))


def test_sites_do_not_register_themselves():
    assert not {b"/v1/fleet/register-node", b"/v1/fleet/unregister-node"} & CALLS
