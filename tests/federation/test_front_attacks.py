"""A site that turns on another with a good key of its own, against a real SuperLink."""

import hashlib
import time

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
    PushObjectRequest,
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

    def reply(self, asked, *, by=None, content=b"a forgery", **about):
        root = hashlib.sha256(content).hexdigest()
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
                message_object_trees=[ObjectTree(object_id=root)],
            )
        )


def refused(call, *arguments, **settings):
    with pytest.raises(httpx.HTTPStatusError) as error:
        call(*arguments, **settings)
    return error.value.response.status_code


def test_a_site_cannot_read_answer_or_confirm_away_what_another_was_asked(centre, tmp_path, let_in):
    with (
        Site(centre, tmp_path / "victim", let_in) as victim,
        Site(centre, tmp_path / "attacker", let_in) as attacker,
        open_flower_run(centre.directory, centre.address) as transport,
    ):
        message_id = transport.send(victim.node_id, b"a question")
        given = victim.client.PullMessages(PullMessagesRequest(node=victim.node))
        (asked,), (tree,) = (message.metadata for message in given.messages_list), given.message_object_trees
        assert asked.message_id == message_id
        parts = [part.object_id for part in iterate_object_tree(tree)]
        # The attacker may know every id; what it lacks is the victim's key.
        assert {refused(attacker.pull, part, asked.run_id) for part in parts} == {404}
        confirm = ConfirmMessageReceivedRequest(
            node=attacker.node, run_id=asked.run_id, message_object_id=message_id
        )
        assert refused(attacker.client.ConfirmMessageReceived, confirm) == 404
        assert refused(attacker.reply, asked, by=victim) == 404
        assert refused(attacker.reply, asked) == 404
        assert refused(attacker.reply, asked, reply_to_message_id="") == 404
        stored = PushObjectRequest(node=attacker.node, run_id=asked.run_id, object_id=parts[0])
        assert refused(attacker.client.PushObject, stored) == 404
        # All that was the victim's is still there, and its own word is the one that is stored.
        assert all(victim.pull(part, asked.run_id) for part in parts)
        own = hashlib.sha256(b"my own").hexdigest()
        assert list(victim.reply(asked, content=b"my own").objects_to_push) == [own]
