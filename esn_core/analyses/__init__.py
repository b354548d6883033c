"""What a protocol may ask beyond the severity network and its prediction.

Each module has the rows of a child and what the sums say of all children. Begin with `reruns`; the table
`[analyses]` of a protocol, which asks for them, is `esn_core.protocol.analyses`.
"""
