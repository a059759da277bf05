"""What every test relies on."""

import signal

# A shell starts its background jobs with SIGINT ignored, and children inherit that: tests that
# interrupt a program would then wait for its natural end.
signal.signal(signal.SIGINT, signal.default_int_handler)
