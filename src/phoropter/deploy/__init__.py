"""What a finished bundle does elsewhere: answers about pictures and recordings of no study."""
