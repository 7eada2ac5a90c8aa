"""What Python's processes do to be quick: tasks of two processes side by side, garbage looked for seldom."""
