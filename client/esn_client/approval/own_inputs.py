"""A protocol's public inputs, tried before anybody approves it: what is no atlas or no model is refused."""

from esn_core.connectome.atlas import VOLUME
from esn_core.protocol.protocol import Protocol


def check_inputs(protocol: Protocol) -> None:
    """Do nothing where every input is there and is what it says it is; hashes were compared when it was read.

    Raises
    ------
    ConfigError
        This version ships no such atlas, or own weights are not those of the model.
    DataError
        An own label volume is no whole image, or does not show the regions of its table.

    """
    atlas, volume = protocol.atlas, protocol.imaging.own_volume
    # Who talks to Flower knows approvals, and loads nothing that reads images or trains.
    if volume is not None:
        from esn_client.imaging.regions.atlas_volume import unpacked_labels

        unpacked_labels(volume, atlas, name=f"{atlas.name}{VOLUME}")
    if protocol.own_weights is not None:
        from esn_core.learning.weights import pretrained

        pretrained(protocol.model.initial_weights, protocol.own_weights)
