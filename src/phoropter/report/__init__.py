"""Results become documents: tables, figures, one page. Never torch."""
