"""What `compare` is made of: environments of the peers, their processes, the contenders, the results."""


class BenchError(Exception):
    """Something that stops the comparison, said in one line."""
