"""Turn a download into lists to train on and videos that load fast.

An annotation reader (`ssv2`, `hmdb51`, `ucf101`, `kinetics`, `folder`, `table`) turns what a source
ships into `Annotations`; `build` finds the videos, checks, splits and writes a folder of lists.
"""
