"""Which part of the transcript each site is sent: what it has not said that it has."""

from dataclasses import replace

from esn_core.errors import ProtocolError
from esn_core.messages.question import Question
from esn_core.transcript.relay import LARGEST_PART_BYTES


class Relay:
    """What the sites have of the transcript of one run, as they said; used by one thread."""

    def __init__(self) -> None:
        self._received: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def part_for(self, site: str, question: Question) -> Question:
        """Return a question with the part of the transcript that a site needs next.

        Parameters
        ----------
        site : str
        question : Question
            With the whole transcript.

        """
        whole = question.relayed
        # A site that was not asked yet may have all of it, from before a restart; it says what it has.
        begin = min(self._received.get(site, len(whole)), len(whole))
        end = min(begin + LARGEST_PART_BYTES, len(whole))
        self._sent[site] = end
        return replace(question, relayed=whole[begin:end], offset=begin, more=end < len(whole))

    def noted(self, site: str, question: Question, received: int) -> bool:
        """Take a site's word for what it has; tell whether that is all that it was sent.

        Raises
        ------
        ProtocolError
            It has more than there is.

        """
        if received > len(question.relayed):
            raise ProtocolError(
                f"says that it has {received} bytes of the transcript, which has {len(question.relayed)}"
            )
        self._received[site] = received
        return received == self._sent.get(site)

    def answered(self, site: str, question: Question) -> None:
        """Note that a site has answered with a sum, and so has all of a question's transcript."""
        if question.id.phase != "roll-call" and not question.reveal:
            self._received[site] = len(question.relayed)
