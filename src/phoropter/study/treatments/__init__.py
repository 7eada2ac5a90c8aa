"""What a study does to its pictures before a network sees them, shown on a few rows"""
