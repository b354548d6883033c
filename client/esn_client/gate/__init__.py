"""The one way out: what leaves is bounded, noised, charged, masked and logged here.

Begin with `gate`, then `ledger`. A security officer reads these two.
"""
