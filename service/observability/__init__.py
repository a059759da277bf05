"""What an operator sees: logs, metrics, traces, and the context of a request they share."""
