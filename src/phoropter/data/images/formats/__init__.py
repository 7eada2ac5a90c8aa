"""Formats of pictures beyond what Pillow shows of them: DICOM, and TIFF of several pages or many channels."""
