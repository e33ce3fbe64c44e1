"""HTTP/2 as a server speaks it, without I/O: bytes in, events and bytes out (RFC 9113, RFC 7541)."""
