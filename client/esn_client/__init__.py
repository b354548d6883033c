"""One hospital: from its scans to the answers that may leave.

Begin with `gate.gate`, the only way out; then `answers.hospital`, which computes what goes through it;
then `imaging.pipeline` for where connectomes come from.
"""
