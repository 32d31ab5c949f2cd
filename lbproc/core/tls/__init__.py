"""What a client says before a TLS session exists, read without TLS: the host it wants, what it can do."""
