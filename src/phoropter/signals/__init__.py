"""Recordings in, arrays out: reading, simulating, cleaning, windowing and rendering signals with NumPy and SciPy only.

    read     readers                          files to Recording objects; outcomes to classes
    make     simulate                         a seed to Recordings whose truth is known
    clean    clean · ctg · ecg                artefact rules, gap filling, baseline, quality, presence of a heartbeat
    window   windows · ctg                    Recordings to a table of windows
    render   render · rasterize               a batch of windows to uint8 images

Nothing here knows a dataset, a study or a network.
"""
