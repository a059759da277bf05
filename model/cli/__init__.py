"""What every command shares: output, progress, devices, threads, optional libraries."""
