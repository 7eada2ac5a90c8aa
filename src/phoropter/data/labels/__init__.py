"""Several labels a row: how they are written, and what is refused."""
