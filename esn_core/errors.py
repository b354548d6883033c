"""The errors of esn-federated, each with the exit status of the command that meets it.

* EsnError (1)
  - ConfigError (10)         a site's or the centre's settings cannot be used
  - DataError (11)           a subject's images, tables or labels cannot be used
    - ControlsError (11)     there are fewer healthy controls than children can be judged by
  - ProtocolError (12)       a message from the other side, or a protocol, cannot be used
  - PrivacyBudgetError (13)  the next step would spend more than was agreed
    - LedgerError (18)       the privacy ledger is not the one that was written
  - GateError (14)           an answer may not leave the site as it stands
  - LinkError (15)           the other side cannot be reached, or is not who it should be
    - AwayError (15)         the other side does not answer now; waiting may help
  - StudyError (16)          a phase of a study cannot be finished
  - SubjectsFailedError (17) some subjects could not be prepared; the others were
  - AuditError (19)          the two sides' logs of messages do not agree
  - QuestionLimitError (21)  a question took more time or memory than the site allows

Status 2 is left to the command line parser, 130 to an interrupt.
"""


class EsnError(Exception):
    """Any failure that a user of esn-federated can do something about."""

    exit_status = 1


class ConfigError(EsnError):
    """A site's or the centre's settings cannot be used."""

    exit_status = 10


class DataError(EsnError):
    """A subject's images, tables or labels cannot be used."""

    exit_status = 11


class ControlsError(DataError):
    """There are fewer healthy controls than children can be judged by.

    The centre is told this class: a site that needs the others' pooled reference cannot hide that.
    """


class ProtocolError(EsnError):
    """A message from the other side, or a protocol, cannot be used."""

    exit_status = 12


class PrivacyBudgetError(EsnError):
    """The next step would spend more than was agreed."""

    exit_status = 13


class LedgerError(PrivacyBudgetError):
    """The privacy ledger is not the one that was written: changed, cut short, or from a backup."""

    exit_status = 18


class GateError(EsnError):
    """An answer may not leave the site as it stands."""

    exit_status = 14


class LinkError(EsnError):
    """The other side cannot be reached, or is not who it should be."""

    exit_status = 15


class AwayError(LinkError):
    """The other side does not answer now; waiting may help."""


class StudyError(EsnError):
    """A phase of a study cannot be finished."""

    exit_status = 16


class SubjectsFailedError(EsnError):
    """Some subjects could not be prepared; the others were."""

    exit_status = 17


class AuditError(EsnError):
    """The two sides' logs of messages do not agree, or one of them was changed."""

    exit_status = 19


class QuestionLimitError(EsnError):
    """A question took more time or memory than the site allows."""

    exit_status = 21
