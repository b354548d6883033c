"""The severity model: its networks in torch, its weights, and what it sends.

Begin with `severity_model`. What a hospital sends of it, with the bound of each, is in `releases`. Nothing
else in `esn_core` imports torch.
"""
