"""Networks whose layers prove their own Lipschitz bound, and the file that keeps them."""
