"""The numbers that a question of a phase is asked with."""

from collections.abc import Mapping
from dataclasses import dataclass

from esn_core.arrays import Floats
from esn_core.errors import ProtocolError
from esn_core.protocol.phases import PhaseName


@dataclass(frozen=True)
class Arguments:
    """Public numbers that an answer depends on, such as the model's weights.

    Attributes
    ----------
    phase : str
    arrays : dict of str to float64 array

    """

    phase: PhaseName
    arrays: Mapping[str, Floats]

    def array(self, name: str, length: int | None = None) -> Floats:
        """Return one of the arrays.

        Raises
        ------
        ProtocolError
            It has another length.

        """
        array = self.arrays[name]
        if length is not None and len(array) != length:
            raise ProtocolError(f"array '{name}' of {self.phase} needs {length} numbers, not {len(array)}")
        return array
