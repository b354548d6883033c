"""The DCNN+RN: networks in torch, their weights, and what comes before training."""
