"""The coordinating centre: the study, the link to the sites, the report."""
