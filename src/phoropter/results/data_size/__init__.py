"""What more data would bring: learning curves over rows or people."""
