"""Sites enter, renew and leave: certificates, kits, revocations.

Begin with `sites`.
"""
