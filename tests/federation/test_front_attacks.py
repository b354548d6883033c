"""A site that turns on another with a good key of its own, against a real SuperLink."""

import contextlib
import hashlib
import socket
import ssl
import time
from dataclasses import dataclass

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from esn_client.site.keys import create_node_key
from esn_server.link.flower_run import open_flower_run

pytestmark = pytest.mark.slow


class Site:
    """A site's link, by Flower's own client, without the SuperNode around it."""

    def __init__(self, centre, directory, let_in):
        create_node_key(directory / "node_key")
        self.node_id = let_in(centre, directory)
        self.node = Node(node_id=self.node_id)
        key = load_ssh_private_key((directory / "node_key").read_bytes(), password=None)
        proofs = [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())]
        self.client = FleetHttpClient.from_server_address(
            centre.public, False, centre.ca_certificate.read_bytes(), proofs
        )
        public = public_key_to_bytes(key.public_key())
        self.client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=600.0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def pull(self, object_id, run_id):
        return self.client.PullObject(
            PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
        ).object_content

    def reply(self, asked, *, by=None, content=b"a forgery", parts=(), **about):
        root = hashlib.sha256(content).hexdigest()
        children = [ObjectTree(object_id=hashlib.sha256(part.encode()).hexdigest()) for part in parts]
        said = {
            "run_id": asked.run_id,
            "message_id": root,
            "src_node_id": (by or self).node_id,
            "dst_node_id": 1,
            "reply_to_message_id": asked.message_id,
            "message_type": "query",
            "created_at": time.time(),
            "ttl": 600.0,
            **about,
        }
        return self.client.PushMessages(
            PushMessagesRequest(
                node=self.node,
                messages_list=[Message(metadata=Metadata(**said), content=RecordDict())],
                message_object_trees=[ObjectTree(object_id=root, children=children)],
            )
        )


def refused(call, *arguments, **settings):
    with pytest.raises(httpx.HTTPStatusError) as error:
        call(*arguments, **settings)
    return error.value.response.status_code


@dataclass
class Asked:
    """A victim that was given a question, and an attacker who knows all about it but the victim's key."""

    victim: Site
    attacker: Site
    question: Metadata
    parts: list[str]


@pytest.fixture
def asked(centre, tmp_path, let_in):
    with (
        Site(centre, tmp_path / "victim", let_in) as victim,
        Site(centre, tmp_path / "attacker", let_in) as attacker,
        open_flower_run(centre.directory, centre.address) as transport,
    ):
        message_id = transport.send(victim.node_id, b"a question")
        given = victim.client.PullMessages(PullMessagesRequest(node=victim.node))
        (message,), (tree,) = given.messages_list, given.message_object_trees
        assert message.metadata.message_id == message_id
        parts = [part.object_id for part in iterate_object_tree(tree)]
        yield Asked(victim, attacker, message.metadata, parts)
        # All that was the victim's is still there, and its own word is the one that is stored.
        assert all(victim.pull(part, message.metadata.run_id) for part in parts)
        own = hashlib.sha256(b"my own").hexdigest()
        assert list(victim.reply(message.metadata, content=b"my own").objects_to_push) == [own]


def test_a_site_cannot_read_what_another_was_asked(asked):
    run = asked.question.run_id
    assert {refused(asked.attacker.pull, part, run) for part in asked.parts} == {404}


def test_a_site_cannot_confirm_away_what_another_was_asked(asked):
    confirm = ConfirmMessageReceivedRequest(
        node=asked.attacker.node, run_id=asked.question.run_id, message_object_id=asked.question.message_id
    )
    assert refused(asked.attacker.client.ConfirmMessageReceived, confirm) == 404


def test_a_site_cannot_answer_in_anothers_name(asked):
    assert refused(asked.attacker.reply, asked.question, by=asked.victim) == 404


@pytest.mark.parametrize("reply_to", [{}, {"reply_to_message_id": ""}], ids=["another's question", "none"])
def test_a_site_cannot_send_what_is_no_answer_to_its_own_question(asked, reply_to):
    assert refused(asked.attacker.reply, asked.question, **reply_to) == 404


def test_a_site_cannot_store_the_same_answer_again_with_other_parts(asked):
    """The SuperLink takes one answer to a message, and the parts of it as often as they are announced."""
    asked.victim.reply(asked.question, content=b"my own")
    for number in range(3):
        assert refused(asked.victim.reply, asked.question, content=b"my own", parts=[f"{number}"]) == 404


def test_silent_connections_lock_nobody_out(centre):
    """More than the front has places for, of one address; the next one that speaks is heard."""
    host, _, port = centre.public.partition(":")
    trust = ssl.create_default_context(cafile=str(centre.ca_certificate))
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=120))
        with httpx.Client(base_url=f"https://{centre.public}", verify=trust, trust_env=False) as client:
            assert client.get("/health", timeout=120).status_code == 200
