"""What a study found, as data and as a page.

Begin with `result`, the schema of result.json; `outcome` fills it, `page` draws it.
"""
