"""The progress of a running study in a terminal: bars, lines for pipes, and the time left"""
