"""Which sites the SuperLink knows: registered by their keys, and taken off again."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest

from esn_server.enrolment.centre_keys import read_node_key
from esn_server.link.superlink_api import control_client, reaching


def register_site(directory: Path, address: str, public_key: Path) -> int:
    """Let the SuperLink accept a site's key.

    Parameters
    ----------
    directory : Path
        The centre's directory.
    address : str
        ``host:port`` of the SuperLink.
    public_key : Path
        The site's public key, elliptic curve, in OpenSSH format.

    Returns
    -------
    int
        The site's node id; a key that is registered already keeps its own.

    Raises
    ------
    ConfigError
        `public_key` cannot be read, or is of another kind.
    LinkError
        The SuperLink cannot be reached.

    """
    key = read_node_key(public_key)
    with reaching(address), control_client(directory, address) as control:
        for node in control.ListNodes(ListNodesRequest()).nodes_info:
            if node.public_key == key and not node.unregistered_at:
                return int(node.node_id)
        return int(control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id)


@dataclass(frozen=True)
class KnownNode:
    """A registered site, as the SuperLink sees it.

    Attributes
    ----------
    online : bool
        Whether its last heartbeat is recent enough.
    last_heard_at : datetime or None
        Of its last heartbeat; None before the first.

    """

    online: bool
    last_heard_at: datetime.datetime | None


def known_nodes(directory: Path, address: str) -> dict[str, KnownNode]:
    """Return the registered sites by their public keys, in OpenSSH form.

    Raises
    ------
    LinkError
        The SuperLink cannot be reached.

    """
    with reaching(address), control_client(directory, address) as control:
        infos = [n for n in control.ListNodes(ListNodesRequest()).nodes_info if not n.unregistered_at]
    found = {}
    for info in infos:
        key = serialization.load_pem_public_key(info.public_key)
        text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        heard = None
        if info.online_until:
            # Flower stores until when it waits: two intervals from the heartbeat on.
            last = info.online_until - HEARTBEAT_PATIENCE * info.heartbeat_interval
            heard = datetime.datetime.fromtimestamp(last, datetime.UTC)
        found[text] = KnownNode(online=info.status == "online", last_heard_at=heard)
    return found


def unregister_site(directory: Path, address: str, public_key: Path) -> None:
    """Let the SuperLink accept a site's key no longer; a key that it does not know is left alone.

    Parameters
    ----------
    directory, address, public_key
        As for `register_site`.

    Raises
    ------
    ConfigError
        `public_key` cannot be read, or is of another kind.
    LinkError
        The SuperLink cannot be reached.

    """
    key = read_node_key(public_key)
    with reaching(address), control_client(directory, address) as control:
        for node in control.ListNodes(ListNodesRequest()).nodes_info:
            if node.public_key == key and not node.unregistered_at:
                control.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
