"""Recordings in, numbers out: reading, simulating, cleaning, cutting and drawing signals with NumPy and SciPy only.

    read     wesad · physionet · tables       files → Recordings (a WESAD pickle through arrays_only); outcomes → classes
    make     simulate                         a seed → Recordings whose truth is known
    clean    clean · ctg · ecg                artefact rules, gap filling, baseline; quality; is there a heartbeat at all
    cut      windows · ctg                    Recordings → a table of windows
    draw     render · drawing                 a batch of windows → uint8 pictures

Nothing here knows a dataset, a study or a network.
"""
