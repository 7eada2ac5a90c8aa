"""What a manifest or the recordings state of each row beside its picture, such as age, as numbers a classifier reads."""
