"""What bounds and hides a child: the release mechanism, its accounting, the secure sum.

Begin with `release` for the bound of a row, then `accounting` for what the noise costs, then `fixed_point`
for how sums are formed exactly, then `secure_sum` for how one site's sum is hidden.
"""
