"""What phoropter writes and reads back: checksums, its own .npz files, cells of CSV files that no spreadsheet runs."""
