"""Test rows as a worse camera, electrode or mains would have recorded them."""
