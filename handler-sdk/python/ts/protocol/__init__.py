"""TorchServe's worker protocol, for tools and tests that speak it. The server's own protocol is
`zoo_handler.wire`.
"""
