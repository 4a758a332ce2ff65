"""What operators and their tools see of the daemon: each module serves one of them."""
