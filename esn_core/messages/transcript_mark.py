"""A place in the transcript of a study: which sums were released before, as one hash."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from esn_core.arrays import Floats


class TranscriptMark(BaseModel):
    """So many sums, the last of which has this hash: two transcripts of one mark are the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sums: int = Field(default=0, ge=0, le=2**20)
    head: str = Field(default="0" * 64, pattern=r"^[0-9a-f]{64}$")

    def followed_by(self, question: str, sites: Sequence[str], total: Floats) -> "TranscriptMark":
        """Return the mark after one more sum.

        Parameters
        ----------
        question : str
            Its id, without the number of the attempt.
        sites : sequence of str
            Whose children were summed.
        total : (d,) float64

        """
        about = json.dumps([self.head, question, list(sites)]).encode()
        digest = hashlib.sha256(about + b"\n" + np.ascontiguousarray(total, dtype="<f8").tobytes())
        return TranscriptMark(sums=self.sums + 1, head=digest.hexdigest())


NOTHING_RELEASED = TranscriptMark()
"""The mark of a study whose first sum is still to come."""
