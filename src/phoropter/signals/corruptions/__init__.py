"""What a worse device, electrode or mains does to a channel."""
