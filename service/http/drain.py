"""Whether the service is about to stop: it is not ready then, and closes what it has answered."""


class Drain:
    """A switch that is only ever turned on; its begin is the operator's signal."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        """Stop being ready. Requests are answered as before."""
        self.has_begun = True
