"""What a run and a study leave on disk: records, predictions, thumbnails, the extensions used."""
