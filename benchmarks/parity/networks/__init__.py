"""Today's networks, made here with random weights by the libraries that own them, and compared with Topwork."""
