"""Trains one network. Knows torch; knows no store, no engine and no metric.

`config` what is trained and what an epoch results in · `loop` the training · `state` resuming it · `inference` the
trained network · `checkpoint` the file format · `speed` an estimate. Only `config` can be imported without torch.
"""
