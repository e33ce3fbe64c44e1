"""One function per RPC: validate the request, make an input of it, shape the reply. They know no transport."""
