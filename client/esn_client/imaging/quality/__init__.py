"""How good a prepared subject is: numbers, pages, and a site's table.

Begin with `numbers`. The limits that they are judged by stand in the protocol
(`esn_core.protocol.quality_limits`).
"""
