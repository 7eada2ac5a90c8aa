"""Results become documents: tables, figures, one page, a model card. Never imports torch."""
